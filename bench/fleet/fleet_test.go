package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// stampede dials whenever it may, whatever the answer was.
type stampede struct {
	flying, idle int
}

func (s *stampede) DialStart(time.Time, flowctl.ConnID, string) { s.flying++ }
func (s *stampede) DialDone(_ time.Time, _ flowctl.ConnID, o flowctl.Outcome) {
	s.flying--
	if o.Class == flowctl.OK {
		s.idle++
	}
}
func (s *stampede) SendStart(time.Time, flowctl.ConnID, int, int)       { s.idle-- }
func (s *stampede) SendDone(time.Time, flowctl.ConnID, flowctl.Outcome) { s.idle++ }
func (s *stampede) Closed(time.Time, flowctl.ConnID, flowctl.Outcome)   { s.idle-- }
func (s *stampede) Plan(time.Time, flowctl.Demand) (p flowctl.Plan) {
	p.Send, p.Linger = s.idle, time.Hour
	if s.flying == 0 {
		p.Dial = []string{model.Address}
	}
	return p
}

func call(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = run(t.Context(), args, &b, io.Discard)
	return code, b.String()
}

func TestALawThatDialsWithoutLimitMissesTheBars(t *testing.T) {
	lawMakers["stampede"] = func(*model.Team, int, uint64, time.Time) (model.Law, error) { return &stampede{}, nil }
	defer delete(lawMakers, "stampede")
	code, out := call(t, "-bars", "2,17,18", "-seeds", "1", "-laws", "stampede")
	if code != exitMissed || !strings.Contains(out, "0 of 3 bars reached, 1 seeds") {
		t.Errorf("exit code %d, want %d and no bar reached:\n%s", code, exitMissed, out)
	}
}

func TestWhatIsKnownMustNotGetWorse(t *testing.T) {
	least, most := utilOver(.9, nil).knownAt(.7, .68), countUnder("", 10, nil).knownAt(20, 30)
	for _, v := range []struct {
		figure figure
		seeds  []float64
		want   grade
	}{
		{least, []float64{.9, .9, .9}, reached},
		{least, []float64{.7, .69, .8}, known},
		{least, []float64{.7, .67, .8}, missed}, // the worst
		{least, []float64{.69, .69, .9}, missed},
		{most, []float64{9, 9, 9}, reached},
		{most, []float64{20, 30, 9}, known},
		{most, []float64{20, 31, 9}, missed},
		{most, []float64{21, 21, 9}, missed},
		{utilOver(.9, nil), []float64{.8, .8, .8}, missed},
	} {
		if got := v.figure.grade(v.figure.summarise(v.seeds)); got != v.want {
			t.Errorf("%v of %v, known %v: %v, want %v", v.seeds, v.figure.Bar, v.figure.Known, got, v.want)
		}
	}
}

// The judge must be able to say yes, too: a perfect budget reaches what it is made for.
func TestAPerfectBudgetReachesTheBarsOfSharing(t *testing.T) {
	code, out := call(t, "-bars", "5,8", "-seeds", "1", "-laws", "budget")
	if code != exitReached {
		t.Errorf("exit code %d, want %d:\n%s", code, exitReached, out)
	}
}

func TestTheSameSeedsPrintTheSameBytes(t *testing.T) {
	args := []string{"-bars", "2", "-seeds", "3", "-json", "-laws", "flowctl,aimd"}
	_, a := call(t, args...)
	_, b := call(t, args...)
	_, c := call(t, append(args, "-first", "100")...)
	if a != b || a == c || len(a) < 500 {
		t.Errorf("three outputs, the third of other seeds, want the first two alike:\n%s\n%s\n%s", a, b, c)
	}
}

func TestEveryLineOfAMarkdownTableHasAllColumns(t *testing.T) {
	few := trialVerdict{Laws: []string{"flowctl"}, Grades: []grade{known}, Summaries: [][]summary{{{Median: .8, Worst: .7}}}}
	few.Trial.Figures = []figure{utilOver(.9, nil).knownAt(.8, .7)}
	full := few
	full.Laws, full.Summaries = []string{"flowctl", "aimd"}, [][]summary{few.Summaries[0], few.Summaries[0]}
	var b bytes.Buffer
	if err := writeMarkdown(&b, &options{}, []verdict{{Grade: known, Trials: []trialVerdict{full, few}}}); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "|") {
			lines++
			if n := strings.Count(line, "|"); n != 7 {
				t.Errorf("%d bars in %q, want 7", n, line)
			}
		}
	}
	if lines != 4 || !strings.Contains(b.String(), "known, >= 80.0 % (70.0 %)") {
		t.Errorf("want four lines and what is known:\n%s", b.String())
	}
}

func TestAWrongCommandLineIsToldAndJudgesNothing(t *testing.T) {
	for _, args := range []string{"-bars 19", "-bars x", "-bars 3-1", "-seeds -1", "-laws nobody", "-laws=", "-nonsense", "more"} {
		var told bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), io.Discard, &told); code != exitUsage || told.Len() == 0 {
			t.Errorf("%s: exit code %d, said %q, want %d and a reason", args, code, told.String(), exitUsage)
		}
	}
}

func TestEveryBarIsThereAndCanBeMissed(t *testing.T) {
	for i, b := range allBars() {
		judged := 0
		for _, tr := range b.Trials {
			for _, f := range tr.Figures {
				if f.Sense == atLeast && f.Worst > f.Bar || f.Sense == atMost && f.Worst < f.Bar {
					t.Errorf("bar %d, %s: the worst seed must be better than the median", b.No, f.Name)
				}
				if f.Sense != shown {
					judged++
				}
			}
		}
		if b.No != i+1 || judged == 0 {
			t.Errorf("bar %d is number %d in the list and has %d figures that are judged", b.No, i+1, judged)
		}
	}
}

func TestTheMedianMustReachTheBarAndTheWorstTheTolerance(t *testing.T) {
	least, few, most := utilOver(.9, nil), utilOver(.9, nil), countUnder("", 10, nil)
	few.FewSeeds = true
	for _, v := range []struct {
		figure figure
		seeds  []float64
		want   bool
	}{
		{least, []float64{.9, .89, .95}, true},
		{least, []float64{.89, .89, .95}, false}, // the median
		{least, []float64{.9, .87, .95}, false},  // the worst
		{most, []float64{10, 15, 3}, true},
		{most, []float64{11, 15, 3}, false},
		{most, []float64{10, 16, 3}, false},
		{few, []float64{.89, .89, .88}, true},
		{few, []float64{.89, .89, .87}, false},
		{show("", plain, nil), []float64{1e9}, true},
	} {
		if got := v.figure.grade(v.figure.summarise(v.seeds)) == reached; got != v.want {
			t.Errorf("%v of %v: reached %v, want %v", v.seeds, v.figure.Bar, got, v.want)
		}
	}
}

func TestAPictureIsWellFormed(t *testing.T) {
	dir := t.TempDir()
	if code, out := call(t, "-bars", "3,14", "-draw", dir); code != exitReached {
		t.Fatal(out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v, want two pictures", names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(text))
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) || !strings.Contains(string(text), ">flowctl<") && !strings.Contains(string(text), ", flowctl<") {
			t.Errorf("%s: %v, want well-formed, with names", name, err)
		}
		if len(text) > 60<<10 {
			t.Errorf("%s: %d bytes, want a picture small enough to be kept in the repository", name, len(text))
		}
	}
}
