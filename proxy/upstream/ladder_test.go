package upstream

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// climber is a ladder and a clock.
type climber struct {
	*ladder
	now time.Time
}

func newClimber(window int, at rung) *climber {
	c := &climber{newLadder(window, L4), noon}
	c.at, c.told = at, true
	return c
}

// answer has n messages taken one after the other, each within took.
func (c *climber) answer(n int, took time.Duration) {
	for range n {
		c.now = c.now.Add(took)
		c.answered(c.now, c.at, true, true, took)
	}
}

func (c *climber) want(t *testing.T, at rung, reason string) {
	t.Helper()
	if c.at != at || !strings.Contains(c.reason, reason) || reason == "" && c.reason != "" {
		t.Errorf("stands on %v because of %q, want %v because of %q", c.at, c.reason, at, reason)
	}
}

func TestItClimbsAsFarAsTheSettingsAllow(t *testing.T) {
	for window, top := range map[int]rung{1: {L3, 1}, 5: {L4, 5}, 0: {L4, WindowMax}} {
		c := newClimber(window, rung{L2, 1})
		for range 1000 {
			c.answer(1, 40*time.Millisecond/time.Duration(c.at.window))
		}
		c.want(t, top, "")
	}
}

// Without a reply that differs nothing would show that replies are one place off.
func TestNothingBeyondL2WhereAnswersLookAlike(t *testing.T) {
	c := newClimber(0, rung{L2, 1})
	c.told = false
	c.answer(1000, time.Millisecond)
	c.want(t, rung{L2, 1}, "")
	c.tell([verbData]Reply{})
	c.answer(1, time.Millisecond)
	c.want(t, rung{L3, 1}, "")
}

func TestEachAnomalyCostsOneLevelAndBarsItForADay(t *testing.T) {
	for from, to := range map[rung]rung{{L4, 8}: {L3, 1}, {L3, 1}: {L2, 1}, {L2, 1}: {L1, 1}, {L1, 1}: {L0, 1}, {L0, 1}: {L0, 1}} {
		c := newClimber(8, from)
		c.lostCount(c.now, from.level, "503")
		c.lostCount(c.now, from.level, "found out late")
		reason := "503"
		if from.level == L0 {
			reason = ""
		}
		c.want(t, to, reason)
		if from.level == L0 {
			continue
		}
		c.answer(200, time.Second)
		c.want(t, to, reason)
		c.now = c.now.Add(stepKeep)
		c.answer(200, 10*time.Millisecond)
		c.want(t, rung{L4, 8}, "")
	}
}

func TestCutsOfOneRestartAreOne(t *testing.T) {
	c := newClimber(8, rung{L4, 8})
	for range 20 { // connections that were all made before
		c.cut(c.now, c.now.Add(-time.Hour), rung{L4, 8}, "cut")
	}
	c.want(t, rung{L4, 8}, "")
	for range cutsMax - 1 {
		c.now = c.now.Add(time.Minute)
		c.cut(c.now, c.now.Add(-time.Second), rung{L4, 8}, "cut")
	}
	c.want(t, rung{L3, 1}, "cut")
}

func TestAMessageBetweenTwoCutsForgetsTheFirst(t *testing.T) {
	c := newClimber(8, rung{L4, 8})
	for range 10 {
		c.now = c.now.Add(time.Minute)
		c.cut(c.now, c.now.Add(-time.Second), rung{L4, 8}, "cut")
		c.answer(1, time.Second)
	}
	c.want(t, rung{L4, 8}, "")
}

// A learnt window is halved by each cut, and grows again after an hour.
func TestALearntWindowIsHalvedByACut(t *testing.T) {
	c := newClimber(0, rung{L4, 16})
	for _, w := range []int{8, 4} {
		c.now = c.now.Add(time.Minute)
		c.cut(c.now, c.now, c.at, "cut")
		c.want(t, rung{L4, w}, "cut")
	}
	c.answer(1, time.Second)
	c.now = c.now.Add(narrowKeep)
	c.answer(1, 10*time.Millisecond)
	for range 300 {
		c.answer(1, 40*time.Millisecond/time.Duration(c.at.window))
	}
	c.want(t, rung{L4, 16}, "")
}

// A window that brings nothing costs duplicates for nothing.
func TestAWindowThatBringsNothingIsGivenUp(t *testing.T) {
	c := newClimber(0, rung{L3, 1})
	for range 400 { // two at once are twice as fast, four are no faster
		c.answer(1, 40*time.Millisecond/time.Duration(min(c.at.window, 2)))
	}
	c.want(t, rung{L4, 2}, "brings nothing")
}

func TestSlowerAnswersCostALevelUnlessTheyAreSlowEverywhere(t *testing.T) {
	slow := func(at rung) time.Duration {
		return map[bool]time.Duration{true: 400, false: 50}[at.level >= L4] * time.Millisecond
	}
	c := newClimber(4, rung{L3, 1})
	for range 200 {
		c.answer(1, slow(c.at))
	}
	c.want(t, rung{L3, 1}, "slower answers: 400ms a message, and 50ms before")

	c = newClimber(4, rung{L3, 1})
	c.at = rung{L3, 1}
	c.pace[rung{L3, 1}.index()].mean = 50 * time.Millisecond
	c.at = rung{L4, 4}
	c.answer(paceSample, 400*time.Millisecond)
	c.want(t, rung{L3, 1}, "slower answers")
	c.answer(paceSample, 400*time.Millisecond) // the server has become slow
	c.want(t, rung{L4, 4}, "")
}

func TestStepsAreToldOnceWithTheirReason(t *testing.T) {
	c := newClimber(8, rung{L4, 8})
	c.lostCount(c.now, L4, "503")
	s := c.drain()
	if len(s) != 1 || s[0].From != "L4, window 8" || s[0].To != "L3" || !s[0].Down || s[0].Reason != "503" || len(c.drain()) != 0 {
		t.Errorf("%+v", s)
	}
	for range 10 * stepsKept {
		c.move(c.now, rung{L2, 1}, "x")
	}
	if n := len(c.drain()); n != stepsKept {
		t.Errorf("%d kept", n)
	}
}

func TestTheLadderSurvivesARestart(t *testing.T) {
	client := func(url, window string) *Client {
		c, err := New(Config{URL: url, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const relay = "smtp://relay.example"
	for name, tc := range map[string]struct {
		from   rung
		barred bool
		url    string
		window string
		after  time.Duration
		want   rung
	}{
		"a window that was learnt":        {rung{L4, 8}, false, relay, "auto", time.Hour, rung{L4, 8}},
		"one that was configured":         {rung{L4, 8}, false, relay, "5", time.Hour, rung{L4, 5}},
		"one that is no longer wanted":    {rung{L4, 8}, false, relay, "1", time.Hour, rung{L3, 1}},
		"a step down":                     {rung{L1, 1}, true, relay, "auto", time.Hour, rung{L1, 1}},
		"what another upstream has shown": {rung{L1, 1}, true, "smtp://other.example", "auto", time.Hour, rung{L2, 1}},
		"what was shown long ago":         {rung{L1, 1}, true, relay, "auto", stepKeep, rung{L2, 1}},
	} {
		old := client(relay, "auto")
		old.ladder.at = tc.from
		if tc.barred {
			old.ladder.down(noon, tc.from, "503 and more", stepKeep)
		}
		data, changed := old.Memory(noon)
		if changed != tc.barred {
			t.Errorf("%s: changed %v", name, changed)
		}
		next := client(tc.url, tc.window)
		if err := next.Restore(noon.Add(tc.after), data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s := next.Standing()
		known := tc.want != rung{L2, 1}
		if next.ladder.at != tc.want || next.ladder.canTell() || (s.Reason == "503 and more") != (tc.barred && known) || s.Until.Equal(noon.Add(stepKeep)) != (tc.barred && known) {
			t.Errorf("%s: %+v", name, s)
		}
		if again := append(data[:len(data):len(data)], 99, 1, 'x'); next.Restore(noon, again) != nil {
			t.Errorf("%s: a field of a later version is not passed over", name)
		}
	}
}

func TestADamagedMemoryOfTheLadderChangesNothing(t *testing.T) {
	c, err := New(Config{URL: "smtp://relay.example"})
	if err != nil {
		t.Fatal(err)
	}
	good, _ := c.Memory(noon)
	for n := range good {
		if err := c.Restore(noon, good[:n]); n < 2 && err == nil || err != nil && !errors.Is(err, ErrMemory) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
	for _, bad := range [][]byte{{2}, append([]byte{}, good[0], tagRung, 2, 9, 1), append([]byte{}, good[0], tagRung, 2, 4, 200), append([]byte{}, good[0], tagUntil, 1, 0)} {
		if err := c.Restore(noon, bad); !errors.Is(err, ErrMemory) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if c.ladder.at != (rung{L2, 1}) {
		t.Errorf("stands on %v", c.ladder.at)
	}
}

func TestWindowsThatAreNone(t *testing.T) {
	for _, w := range []string{"0", "17", "-1", "many", "1.5", "01", "AUTO"} {
		if err := (Config{URL: "smtp://relay.example", Window: w}).Validate(); err == nil {
			t.Errorf("%q is taken", w)
		}
	}
	for _, w := range []string{"", "1", "16", "auto"} {
		if err := (Config{URL: "smtp://relay.example", Window: w}).Validate(); err != nil {
			t.Error(err)
		}
	}
}
