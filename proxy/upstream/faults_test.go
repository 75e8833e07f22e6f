package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/flowctl"
)

// ordinary is what the relay says by itself.
var ordinary = map[string]string{"RSET": "250 reset", "MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "DATA": "354 go ahead", "BODY": "", "DOT": "250 2.0.0 queued"}

// trouble is what a relay may do in place of its answer; own is that answer. kept: the answer arrives all the same, so that nothing
// may come of it.
type trouble struct {
	name string
	act  func(own string) act
	kept bool
}

var troubles = []trouble{
	{"closes", func(string) act { return act{then: "close"} }, false},
	{"resets", func(string) act { return act{then: "reset"} }, false},
	{"takes and closes", func(string) act { return act{then: "close", take: 1} }, false},
	{"takes and resets", func(string) act { return act{then: "reset", take: 1} }, false},
	{"takes and stalls", func(string) act { return act{then: "stall", take: 1} }, false},
	{"answers and closes", func(own string) act { return act{reply: own, then: "close"} }, false},
	{"stalls", func(string) act { return act{then: "stall", take: -1} }, false},
	{"stops reading", func(string) act { return act{then: "freeze", take: -1} }, false},
	{"drips", func(own string) act { return act{reply: own, drip: true} }, true},
	{"drips without end", func(own string) act {
		return act{reply: strings.Repeat(own[:3]+"-x\n", 120) + own, drip: true, take: -1}
	}, false},
	{"is late", func(own string) act { return act{later: own} }, true},
	{"421 and closes", func(string) act { return act{reply: "421 4.3.2 shutting down", then: "close"} }, false},
	{"421 and goes on", func(string) act { return act{reply: "421 4.3.2 shutting down"} }, false},
	{"421 of a full session", func(string) act { return act{reply: "421 4.7.0 too many messages in this connection", then: "close"} }, false},
	{"503", func(string) act { return act{reply: "503 5.5.1 bad sequence"} }, false},
	{"354", func(own string) act {
		return act{reply: "354 send", take: map[bool]int{true: 1, false: -1}[own[0] == '3']}
	}, false},
	{"garbage", func(string) act { return act{reply: "\x00\x01?", take: -1} }, false},
	{"garbage, and takes", func(string) act { return act{reply: "\x00\x01?", take: 1} }, false},
	{"too many lines", func(string) act { return act{reply: strings.Repeat("250-more\n", replyLinesMax) + "250 end"} }, false},
	{"too long a line", func(string) act { return act{reply: "250 " + strings.Repeat("x", 2*replyLineMax)} }, false},
	{"two codes in one", func(string) act { return act{reply: "250-one\n550 two", take: -1} }, false},
	{"no answer", func(own string) act { return act{take: map[bool]int{true: 1, false: -1}[own == ""]} }, false},
	{"no answer, and takes", func(string) act { return act{take: 1} }, false},
	{"answers twice", func(own string) act { return act{reply: own + "\n" + own} }, false},
	{"says something first", func(own string) act { return act{reply: "250 2.0.0 hello\n" + own} }, false},
	{"says 250, then refuses", func(string) act { return act{reply: "250 2.0.0 ok\n554 5.6.0 refused", take: -1} }, false},
	{"refuses, then takes", func(own string) act { return act{reply: "554 5.6.0 refused\n" + own, take: 1} }, false},
	{"451", func(string) act { return act{reply: "451 4.3.0 not now"} }, true},
	{"550", func(string) act { return act{reply: "550 5.1.1 no"} }, true},
}

// Every fault in every phase of a fresh and of a used connection, on every rung. Nothing is lost, nothing is attributed to another message or recipient,
// and what may arrive twice is what the relay took without an answer.
func TestNoTroubleConfusesMessages(t *testing.T) {
	for _, at := range allRungs {
		for _, phase := range []string{"RSET", "MAIL", "RCPT", "DATA", "BODY", "DOT"} {
			if phase == "RSET" && at.level == L0 || phase == "DATA" && at.level >= L3 {
				continue
			}
			for _, tr := range troubles {
				if own := ordinary[phase]; own == "" && (strings.Contains(tr.name, "drips") || tr.name == "354" || tr.kept) {
					continue // there is no answer at that place
				}
				for nth := 1; nth <= 4; nth++ {
					name := fmt.Sprintf("%s %s %d %s", at.name(), phase, nth, tr.name)
					t.Run(name, func(t *testing.T) { troubleIn(t, at, 0, phase, nth, tr) })
					if at.level == L4 { // many replies come together
						t.Run(name+", far away", func(t *testing.T) { troubleIn(t, at, 20*time.Millisecond, phase, nth, tr) })
					}
				}
			}
		}
	}
}

func troubleIn(t *testing.T, at rung, oneWay time.Duration, phase string, nth int, tr trouble) {
	r := &relay{offers: chunking, oneWay: oneWay, script: map[string]act{fmt.Sprintf("%s %d", phase, nth): tr.act(ordinary[phase])}}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(5, 2)
		if phase == "BODY" && at.level < L3 { // the dot must not be on the wire yet
			jobs[nth-1].Env.Size = 400_000
			jobs[nth-1].Open = func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x\r\n", writeBuffer)), waits{}, strings.NewReader(strings.Repeat("x\r\n", writeBuffer)))), nil
			}
		}
		cl := r.on(t, at)
		results, out := send(r.connect(t, cl), jobs...)
		r.checkTruth(t, jobs[:len(results)], results)
		for _, j := range jobs[len(results):] {
			for i := range j.To {
				if r.took(j, i) > 0 {
					t.Errorf("%s has no result, and was taken", j.Env.From)
				}
			}
		}
		if tr.kept && (len(results) != 5 || out.Class != flowctl.OK) && phase != "RSET" {
			t.Errorf("%d results, and %+v", len(results), out)
		}
		most := max(at.window, 1)
		if at.level >= L3 && strings.Contains(tr.name, "refuse") {
			most++ // the one whose refusal was another's: those behind it were to show that
		}
		if uncertain := r.unanswered(results); uncertain > most {
			t.Errorf("%d uncertain with a window of %d", uncertain, at.window)
		}
		if cl.Standing().Level > at.level {
			t.Errorf("it climbs for it to %v", cl.Standing())
		}
	})
}

// unanswered counts the messages that may arrive twice.
func (r *relay) unanswered(results []*Result) (n int) {
	for _, res := range results {
		if res.Uncertain {
			n++
		}
	}
	return n
}

// A message that was written whole and not answered is uncertain; behind a 421 with which the server closes nothing is, and what was not written
// is given back. None of it is more than one failure of the upstream.
func TestWhatAnEndLeavesUncertain(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		act                      act
		decided, uncertain, back int
	}{
		{"close", act{then: "close"}, 1, 4, 0},
		{"421", act{reply: "421 4.3.2 shutting down", then: "close"}, 2, 0, 3},
		{"421 of a full session", act{reply: "421 4.7.0 too many messages in this connection", then: "close"}, 2, 0, 3},
		{"421 and goes on", act{reply: "421 4.3.2 shutting down"}, 5, 0, 0},
		{"421 and stalls", act{reply: "421 4.3.2 shutting down", then: "stall"}, 2, 3, 0},
		{"503", act{reply: "503 5.5.1 bad sequence"}, 1, 4, 0},
	} {
		r := &relay{offers: chunking, script: map[string]act{"MAIL 2": tc.act}}
		inBubble(t, r, func(t *testing.T) {
			results, _ := send(r.connect(t, r.on(t, rung{L4, WindowMax})), letters(5, 1)...)
			decided, uncertain, back, signals := 0, 0, 0, 0
			for _, res := range results {
				switch {
				case res.Uncertain:
					uncertain++
				case res.HandedBack:
					back++
				default:
					decided++
				}
				if c := res.Signal.Class; c != flowctl.OK && c != flowctl.IdleClose {
					signals++
				}
			}
			if decided != tc.decided || uncertain != tc.uncertain || back != tc.back || signals > 1 {
				t.Errorf("%s: %d decided, %d uncertain, %d handed back, %d signals", tc.name, decided, uncertain, back, signals)
			}
		})
	}
}

// A relay that takes a message and says a moment later that it does not: where others are in flight behind it, it shows before the verdict counts.
// Where none is, its first word stands, as the protocol has it.
func TestAVerdictIsConfirmedByWhatIsBehind(t *testing.T) {
	for _, words := range [][2]string{{"250 2.0.0 ok", "554 5.6.0 refused"}, {"554 5.6.0 refused", "250 2.0.0 queued"}} {
		script := map[string]act{"DOT 1": {reply: words[0], later: words[1], wait: confirmMax / 10, take: map[bool]int{true: 1, false: -1}[words[1][0] == '2']}}
		r := &relay{offers: chunking, script: script}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(4, 1)
			results, _ := send(r.connect(t, r.on(t, rung{L4, WindowMax})), jobs...)
			r.checkTruth(t, jobs[:len(results)], results)
			if !results[0].Uncertain {
				t.Errorf("%q: %+v", words, results[0])
			}
		})
	}
}

// Replies that came together are all heard before anything is sent: else one too many would pass for the answer to what was sent meanwhile.
// A refusal that was the second answer to a recipient: the content's own comes a moment later, and nothing else is in flight.
func TestARefusalWaitsForWhatIsLeftOver(t *testing.T) {
	for _, at := range []rung{{L3, 1}, {L4, 2}} {
		r := &relay{offers: chunking, script: map[string]act{"RCPT 4": {reply: "250 2.0.0 ok\n554 5.6.0 refused", take: -1}, "DOT 2": {later: "250 2.0.0 queued", wait: confirmMax / 2}}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(2, 2)
			results, _ := send(r.connect(t, r.on(t, at)), jobs...)
			r.checkTruth(t, jobs, results)
			if !results[1].Uncertain {
				t.Errorf("%s: %+v", at.name(), results[1])
			}
		})
	}
}

func TestNothingIsSentAmidReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := (&relay{}).on(t, rung{L4, 2})
		ours, theirs := memconn.Pipe()
		cl.cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		defer theirs.Close()
		say := func(text string) {
			if _, err := io.WriteString(theirs, text); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		var conn *Conn
		go func() { conn, _ = cl.Connect(t.Context(), "") }()
		say("220 x\r\n")
		say("250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
		opened := 0
		feed, results := make(chan *Job, 4), make(chan *Result, 4)
		for _, j := range letters(4, 1) {
			open := j.Open
			j.Open = func() (io.ReadCloser, error) { opened++; return open() }
			feed <- j
		}
		ended := make(chan flowctl.Outcome, 1)
		go func() { ended <- conn.Run(feed, func(r *Result) { results <- r }) }()
		synctest.Wait() // both are sent: what comes earlier answers nothing
		say("250 reset\r\n250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.0.0 c\r\n250 reset\r\n250 2.")
		if opened != 2 || len(results) != 0 {
			t.Errorf("amid replies %d are sent and %d done", opened, len(results))
		}
		say("1.0 a\r\n")
		if opened != 3 || len(results) != 1 {
			t.Errorf("after them %d are sent and %d done", opened, len(results))
		}
		conn.Cut()
		<-ended
	})
}

// What a server that reads nothing more has not been given whole is handed back.
func TestWhatWasNotWrittenIsHandedBack(t *testing.T) {
	r := &relay{offers: chunking, script: map[string]act{"MAIL 1": {then: "freeze"}}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.on(t, rung{L4, WindowMax})
		dial := cl.cfg.Dial
		cl.cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &fullConn{Conn: conn, room: 70_000}, err
		}
		c := r.connect(t, cl)
		jobs := letters(10, 1)
		for _, j := range jobs {
			j.Env.Size = 30_000
			j.Open = func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(strings.Repeat("x\r\n", 10_000))), nil
			}
		}
		results, out := send(c, jobs...)
		var fates []string
		for _, res := range results {
			fates = append(fates, map[bool]string{true: "uncertain", false: "back"}[res.Uncertain])
			if res.Uncertain == res.HandedBack {
				t.Errorf("%+v", res)
			}
		}
		fates = slices.Compact(fates)
		if !slices.Equal(fates, []string{"uncertain", "back"}) || out.Class != flowctl.Overload {
			t.Errorf("%v, %+v", fates, out)
		}
	})
}

// fullConn takes so many octets and no more.
type fullConn struct {
	net.Conn
	room int
}

func (c *fullConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p[:min(len(p), c.room)])
	if c.room -= n; err == nil && n < len(p) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Whatever a relay says, in whatever pieces: no panic, each job has one result, and what is held of it stays small.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("250 a\r\n250 b\r\n250 2.1.5 c\r\n250 2.0.0 d\r\n"), uint8(3))
	f.Add([]byte("250 a\r\n250 b\r\n354 c\r\n250 d\r\n421 e\r\n"), uint8(2))
	f.Add([]byte("250-a\r\n250 b\r\n550 no\r\n554 no\r\n\x00"), uint8(5))
	f.Fuzz(func(t *testing.T, said []byte, which uint8) {
		at := allRungs[int(which)%len(allRungs)]
		r := &relay{offers: chunking, script: map[string]act{"MAIL 1": {reply: strings.TrimSuffix(string(said), "\r\n"), then: "stall", take: -1}}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(4, 2)
			c := r.connect(t, r.on(t, at))
			results, _ := send(c, jobs...)
			for k, res := range results {
				if res.Job != jobs[k] || res.HandedBack != (res.Verdicts == nil) {
					t.Errorf("result %d: %+v", k, res)
				}
			}
			if len(c.in) > groupMax+2 {
				t.Errorf("%d replies held", len(c.in))
			}
		})
	})
}

// A relay that never stops talking is stopped, whatever it says: what is read of it is bounded.
func TestARelayThatNeverStopsTalking(t *testing.T) {
	for _, at := range allRungs {
		for name, flood := range map[string]string{
			"replies": strings.Repeat("250 2.0.0 ok\n", 100_000), "a reply": strings.Repeat("250-ok\n", 100_000), "a line": strings.Repeat("2", 1<<20),
		} {
			r := &relay{offers: chunking, script: map[string]act{"MAIL 2": {reply: flood, take: -1}}}
			inBubble(t, r, func(t *testing.T) {
				start := time.Now()
				results, out := send(r.connect(t, r.on(t, at)), letters(5, 2)...)
				if out.Class == flowctl.OK || time.Since(start) > time.Minute {
					t.Errorf("%s, %s: %d results after %v, %+v", at.name(), name, len(results), time.Since(start), out)
				}
			})
		}
	}
}

// A relay whose replies have no codes to tell them apart says something unasked, and then does not take the content. Its reply to a recipient stands
// where that to the content should: that this is no answer to a content is known from an earlier message, or seen by the address in it.
func TestAReplyToARecipientIsNoneToAContent(t *testing.T) {
	for name, rcpt := range map[string]string{"the same to each": "250 Accepted", "the address": "250 <> accepted"} {
		words := map[string]string{"RSET": "250 Reset OK", "MAIL": "250 OK", "RCPT": rcpt, "DOT": "250 OK id=1"}
		for _, at := range []rung{{L3, 1}, {L4, 2}, {L4, WindowMax}} {
			for _, verb := range []string{"RSET", "MAIL", "RCPT"} {
				for _, rcpts := range []int{1, 2} {
					for nth := 2; nth <= 5; nth++ {
						for _, then := range []string{"", "554 no"} {
							r := &relay{offers: chunking, words: words, ponders: 3 * time.Second, unasked: fmt.Sprintf("%s %d", verb, nth), script: map[string]act{}}
							if then != "" && verb == "RCPT" {
								r.script[r.unasked] = act{reply: then}
							}
							for dot := 2; dot <= 6; dot++ {
								r.script[fmt.Sprintf("DOT %d", dot)] = act{reply: "452 disk full"}
							}
							t.Run(fmt.Sprintf("%s %s %s %d %d%s", name, at.name(), verb, rcpts, nth, then), func(t *testing.T) {
								inBubble(t, r, func(t *testing.T) {
									cl := r.on(t, at)
									cl.ladder.told = false // the first message goes with DATA
									jobs := letters(6, rcpts)
									results, _ := send(r.connect(t, cl), jobs...)
									r.checkTruth(t, jobs[:len(results)], results)
								})
							})
						}
					}
				}
			}
		}
	}
}

// What is kept of a relay's words is what is shown of them, however long they are: here 16 messages are in flight, and none is done.
func TestLongRepliesFillNoMemory(t *testing.T) {
	const most = 2 << 20 // octets; all that it says has 6 MiB
	long := strings.Repeat("250-"+strings.Repeat("x", 600)+"\n", 96) + "250 x"
	r := &relay{offers: chunking, words: map[string]string{"RSET": long + "1", "MAIL": long + "2", "RCPT": long + "3"}, script: map[string]act{"DOT 16": {then: "stall"}}}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	inBubble(t, r, func(t *testing.T) {
		c := r.connect(t, r.on(t, rung{L4, WindowMax}))
		feed := make(chan *Job, WindowMax)
		for _, j := range letters(WindowMax, 4) {
			feed <- j
		}
		close(feed)
		before := heap()
		var held, taken uint64
		c.Run(feed, func(*Result) {
			if taken++; taken > 1 {
				return
			}
			<-time.After(time.Minute) // a slow journal
			held = heap()
		})
		if held == 0 || held > before+most {
			t.Errorf("%d octets are held", held-before)
		}
	})
}

// Who says 421 and goes on, and then talks nonsense, may have carried out all that it was sent.
func TestNonsenseBehindAFarewellLeavesAllInDoubt(t *testing.T) {
	for _, nonsense := range []string{"\x00\x01?", "250 " + strings.Repeat("x", 2*replyLineMax)} {
		r := &relay{offers: chunking, oneWay: 20 * time.Millisecond, script: map[string]act{"RSET 3": {reply: "421 4.3.2 leaving"}, "DOT 3": {reply: nonsense, take: 1}}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(5, 1)
			results, _ := send(r.connect(t, r.on(t, rung{L4, WindowMax})), jobs...)
			r.checkTruth(t, jobs[:len(results)], results)
			if len(results) != 5 || !results[2].Uncertain {
				t.Errorf("%d results", len(results))
			}
		})
	}
}
