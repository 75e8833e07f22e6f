package upstream

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// allRungs are the ways to talk to a relay; at L3 and L4 it has to offer CHUNKING.
var allRungs = []rung{{L0, 1}, {L1, 1}, {L2, 1}, {L3, 1}, {L4, 2}, {L4, 4}, {L4, WindowMax}}

func (r rung) name() string { return fmt.Sprintf("L%d.%d", r.level, r.window) }

// on returns a client of r that stands on a rung.
func (r *relay) on(t *testing.T, at rung) *Client {
	t.Helper()
	cl := r.client(t, Config{})
	stand(cl, at.level, at.window)
	return cl
}

func TestMessagesArriveWholeOnEachRung(t *testing.T) {
	for _, at := range allRungs {
		r := &relay{offers: chunking}
		inBubble(t, r, func(t *testing.T) {
			cl := r.on(t, at)
			jobs := letters(40, 3)
			c := r.connect(t, cl)
			results, out := send(c, jobs...)
			r.checkTruth(t, jobs, results)
			if len(results) != 40 || len(r.accepted) != 40 || c.Messages() != 40 || out.Class != flowctl.OK {
				t.Errorf("%s: %d results, %d taken, %d counted, %+v", at.name(), len(results), len(r.accepted), c.Messages(), out)
			}
			chunks := 0
			for _, l := range r.lines {
				if strings.HasPrefix(l, "BDAT ") {
					chunks++
				}
			}
			if want := map[bool]int{true: 40}[at.level >= L3]; chunks != want {
				t.Errorf("%s: %d of 40 were sent with BDAT, want %d", at.name(), chunks, want)
			}
			if last := r.lines[len(r.lines)-1]; last != "QUIT" {
				t.Errorf("%s: the last command is %q", at.name(), last)
			}
			for k, res := range results {
				if res.Reused != (k > 0) || res.Signal.Class != flowctl.OK {
					t.Errorf("%s: message %d: reused %v, signal %+v", at.name(), k+1, res.Reused, res.Signal)
				}
			}
		})
	}
}

// A round trip of 40 ms: a lone message costs two at L2 and one at L3; of many each costs one at L2 and L3, and a window of 16 carries 16 in it.
// An operator knows better than the relay: what is discarded is not used.
func TestADiscardedKeywordIsNotOffered(t *testing.T) {
	for keyword, want := range map[string]Level{"": L4, "chunking": L2, "PIPELINING": L0} {
		r := &relay{offers: append([]string{"SIZE 1000", "DSN"}, chunking...)}
		inBubble(t, r, func(t *testing.T) {
			cfg := Config{DiscardEHLO: []string{"SIZE"}}
			if keyword != "" {
				cfg.DiscardEHLO = append(cfg.DiscardEHLO, keyword)
			}
			cl := r.client(t, cfg)
			stand(cl, L3, 1)
			c := r.connect(t, cl)
			jobs := letters(2, 1)
			jobs[1].Env.Size = 5000 // more than the relay says it takes
			if _, out := send(c, jobs...); out.Class != flowctl.OK || len(r.accepted) != 2 {
				t.Errorf("%q: %d taken, %+v", keyword, len(r.accepted), out)
			}
			if got := cl.Standing().Level; got != min(want, L3) {
				t.Errorf("%q: it is said to be at %v", keyword, got)
			}
			if c.level != want || strings.Contains(strings.Join(r.lines, " "), "SIZE=") || !c.Extensions().DSN {
				t.Errorf("%q: up to %v, %q", keyword, c.level, r.lines)
			}
		})
	}
	if err := (Config{URL: "smtp://relay.example", DiscardEHLO: []string{"STARTTLS"}}).Validate(); err == nil {
		t.Error("STARTTLS cannot be discarded: that is what the settings of TLS are for")
	}
}

func TestRoundTripsOfAFlight(t *testing.T) {
	const rtt = 40 * time.Millisecond
	took := func(at rung, n int) (d time.Duration) {
		r := &relay{offers: chunking, oneWay: rtt / 2}
		inBubble(t, r, func(t *testing.T) {
			c := r.connect(t, r.on(t, at))
			start := time.Now()
			feed := make(chan *Job, n)
			for _, j := range letters(n, 1) {
				feed <- j
			}
			close(feed)
			c.Run(feed, func(*Result) { d = time.Since(start) })
			if len(r.accepted) != n {
				t.Errorf("%s: %d taken", at.name(), len(r.accepted))
			}
		})
		return d
	}
	for _, tc := range []struct {
		at    rung
		n     int
		trips int
	}{{rung{L2, 1}, 1, 2}, {rung{L3, 1}, 1, 1}, {rung{L2, 1}, 160, 161}, {rung{L3, 1}, 160, 160}, {rung{L4, 2}, 160, 80}, {rung{L4, 16}, 160, 10}} {
		if d := took(tc.at, tc.n); d != time.Duration(tc.trips)*rtt {
			t.Errorf("%s: %d messages took %v, want %d round trips", tc.at.name(), tc.n, d, tc.trips)
		}
	}
}

// All mixes of answers to up to five recipients, and of the answer to the content.
func TestEachOfFiveRecipientsHasItsVerdict(t *testing.T) {
	replies := []string{"250 2.1.5 ok", "450 4.2.1 later", "550 5.1.1 unknown"}
	classes := []flowctl.Class{flowctl.OK, flowctl.PerMessage, flowctl.Permanent}
	for _, at := range allRungs {
		for n, mixes := 1, 3; n <= 5; n, mixes = n+1, mixes*3 {
			for m := range mixes * 3 {
				mix, final := make([]int, n), m/mixes
				r := &relay{offers: chunking, script: map[string]act{}}
				for i, rest := 0, m; i < n; i, rest = i+1, rest/3 {
					mix[i] = rest % 3
					r.script[fmt.Sprintf("RCPT %d", n+i+1)] = act{reply: replies[mix[i]]} // of the second message
				}
				if slices.Contains(mix, 0) {
					r.script["DOT 2"] = act{reply: []string{"250 2.0.0 queued", replies[1], replies[2]}[final]}
				} else if final > 0 {
					continue // the content gets no answer of its own
				}
				inBubble(t, r, func(t *testing.T) {
					jobs := letters(3, n)
					results, out := send(r.connect(t, r.on(t, at)), jobs...)
					r.checkTruth(t, jobs, results)
					if len(results) != 3 || out.Class != flowctl.OK {
						t.Fatalf("%s %v: %d results, %+v", at.name(), mix, len(results), out)
					}
					worst := flowctl.OK
					for i, x := range mix {
						want := classes[x]
						if x == 0 {
							want = classes[final]
						}
						worst = max(worst, want)
						if got := results[1].Verdicts[i].Class; got != want {
							t.Errorf("%s %v, then %d: recipient %d has class %d, want %d", at.name(), mix, final, i+1, got, want)
						}
					}
					if results[1].Signal.Class != worst {
						t.Errorf("%s %v, then %d: signal %d, want %d", at.name(), mix, final, results[1].Signal.Class, worst)
					}
				})
			}
		}
	}
}

// A MAIL that is refused takes its BDAT with it, and nothing else.
func TestARefusedMailTakesItsContentWithIt(t *testing.T) {
	for _, at := range []rung{{L3, 1}, {L4, WindowMax}} {
		r := &relay{offers: chunking, script: map[string]act{"MAIL 2": {reply: "550 5.1.7 no"}}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(4, 2)
			results, out := send(r.connect(t, r.on(t, at)), jobs...)
			r.checkTruth(t, jobs, results)
			if len(results) != 4 || out.Class != flowctl.OK || len(r.accepted) != 3 || results[1].Verdicts[1].Class != flowctl.Permanent {
				t.Errorf("%s: %d results, %+v, %d taken", at.name(), len(results), out, len(r.accepted))
			}
		})
	}
}

// A 250 to a content that is for nobody is the answer to something else.
func TestNobodysContentIsNotTaken(t *testing.T) {
	for _, at := range []rung{{L3, 1}, {L4, WindowMax}} {
		r := &relay{offers: chunking, script: map[string]act{
			"MAIL 2": {reply: "550 5.1.7 no"}, "RCPT 2": {reply: "250 2.1.5 ok"}, "BDAT 1": {reply: "250 2.0.0 queued"},
		}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(3, 1)
			results, out := send(r.connect(t, r.on(t, at)), jobs...)
			r.checkTruth(t, jobs[:len(results)], results)
			if !results[1].Uncertain || out.Class != flowctl.Unavailable {
				t.Errorf("%s: %+v, %+v", at.name(), results[1], out)
			}
		})
	}
}

// The window bounds what is not acknowledged: in messages, in octets, in commands.
func TestTheWindowIsNeverExceeded(t *testing.T) {
	for _, tc := range []struct {
		name        string
		octets, to  int
		most, least int // messages in flight
	}{{"messages", 100, 1, WindowMax, WindowMax}, {"octets", 40_000, 1, 6, 6}, {"commands", 100, 30, 3, 3}} {
		r := &relay{offers: chunking, script: map[string]act{"RSET 2": {then: "stall"}, "MAIL 1": {then: "stall"}}}
		inBubble(t, r, func(t *testing.T) {
			c := r.connect(t, r.on(t, rung{L4, WindowMax}))
			jobs := letters(30, tc.to)
			opened := 0
			for _, j := range jobs {
				j.Env.Size = int64(tc.octets)
				j.Open = func() (io.ReadCloser, error) {
					opened++
					return io.NopCloser(strings.NewReader(strings.Repeat("x\r\n", tc.octets/3))), nil
				}
			}
			results, _ := send(c, jobs...)
			if opened > tc.most || opened < tc.least || len(results) != opened && len(results) != opened+1 {
				t.Errorf("%s: %d in flight, %d results", tc.name, opened, len(results))
			}
			for k, res := range results {
				if res.HandedBack != (k >= opened) || res.Uncertain != (k < opened) {
					t.Errorf("%s: message %d: handed back %v, uncertain %v", tc.name, k+1, res.HandedBack, res.Uncertain)
				}
			}
		})
	}
}

// What is too large for a flight, and what comes after a silence, goes with DATA, in its turn and between the others.
func TestALargeMessageGoesWithDataInItsTurn(t *testing.T) {
	for _, at := range []rung{{L3, 1}, {L4, WindowMax}} {
		r := &relay{offers: chunking}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(9, 1)
			for _, k := range []int{0, 3, 4, 8} {
				jobs[k].Env.Size = flightMax + 1
				jobs[k].Open = func() (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader(strings.Repeat("x\r\n", 30_000))), nil
				}
			}
			results, out := send(r.connect(t, r.on(t, at)), jobs...)
			r.checkTruth(t, jobs, results)
			var how []string
			for _, l := range r.lines {
				if v := strings.Fields(l)[0]; v == "DATA" || v == "BDAT" {
					how = append(how, v[:1])
				}
			}
			if got := strings.Join(how, ""); got != "DBBDDBBBD" || out.Class != flowctl.OK || len(r.accepted) != 9 {
				t.Errorf("%s: sent as %s, %d taken, %+v", at.name(), got, len(r.accepted), out)
			}
		})
	}
}

func TestAfterASilenceAMessageIsNotSentWhole(t *testing.T) {
	r := &relay{offers: chunking}
	inBubble(t, r, func(t *testing.T) {
		feed, results, ended := feedOpen(r.connect(t, r.on(t, rung{L3, 1})))
		for k, wait := range []time.Duration{0, freshFor / 2, freshFor, 0} {
			<-time.After(wait)
			feed <- letter(k+1, 1)
			<-results
		}
		close(feed)
		<-ended
		var how []string
		for _, l := range r.lines {
			if v := strings.Fields(l)[0]; v == "DATA" || v == "BDAT" {
				how = append(how, v)
			}
		}
		if want := []string{"BDAT", "BDAT", "DATA", "BDAT"}; !slices.Equal(how, want) {
			t.Errorf("sent with %v, want %v", how, want)
		}
	})
}

// A content that cannot be read leaves nothing on the wire, and the others go on.
func TestUnreadableContentCostsNoFlight(t *testing.T) {
	for _, at := range []rung{{L3, 1}, {L4, WindowMax}} {
		for name, open := range map[string]func() (io.ReadCloser, error){
			"open": func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF },
			"read": func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{io.ErrUnexpectedEOF})), nil
			},
			"close": func() (io.ReadCloser, error) {
				return brokenBody{strings.NewReader("x\r\n"), new(bool), io.ErrUnexpectedEOF}, nil
			},
			"stuck": func() (io.ReadCloser, error) { return io.NopCloser(failing{nil}), nil },
			"long": func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(strings.Repeat("x", flightMax+1))), nil
			},
		} {
			r := &relay{offers: chunking}
			inBubble(t, r, func(t *testing.T) {
				jobs := letters(5, 2)
				jobs[2].Open = open
				results, out := send(r.connect(t, r.on(t, at)), jobs...)
				r.checkTruth(t, jobs, results)
				bad := results[2]
				if len(results) != 5 || len(r.accepted) != 4 || out.Class != flowctl.OK || bad.Err == nil || bad.Uncertain || bad.HandedBack ||
					bad.Verdicts[1].Class != flowctl.PerMessage || bad.Signal.Class != flowctl.IdleClose {
					t.Errorf("%s %s: %d results, %d taken, %+v, %+v", at.name(), name, len(results), len(r.accepted), bad, out)
				}
			})
		}
	}
}

// A job that was taken back before its turn costs nothing; one whose turn has come cannot be.
func TestWhatIsInFlightCannotBeTakenBack(t *testing.T) {
	r := &relay{offers: chunking}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(6, 1)
		jobs[1].Withdraw()
		feed := make(chan *Job, len(jobs))
		for _, j := range jobs {
			feed <- j
		}
		close(feed)
		var results []*Result
		out := r.connect(t, r.on(t, rung{L4, 3})).Run(feed, func(res *Result) {
			if results = append(results, res); len(results) == 1 {
				if jobs[2].Withdraw() || !jobs[5].Withdraw() {
					t.Error("what is in flight was taken back, or what is not could not be")
				}
			}
		})
		r.checkTruth(t, jobs, results)
		for k, res := range results {
			if res.HandedBack != (k == 1 || k == 5) {
				t.Errorf("message %d: %+v", k+1, res)
			}
		}
		if len(results) != 6 || out.Class != flowctl.OK || len(r.accepted) != 4 {
			t.Errorf("%d results, %d taken, %+v", len(results), len(r.accepted), out)
		}
	})
}

// A content ends in CRLF and nothing is done to its dots.
func TestAChunkIsSentAsItIs(t *testing.T) {
	for content, want := range map[string]string{
		"x: y\r\n\r\n.\r\n..\r\n": "x: y\r\n\r\n.\r\n..\r\n",
		"x: y":                    "x: y\r\n",
		"x: y\r":                  "x: y\r\n",
	} {
		r := &relay{offers: chunking}
		inBubble(t, r, func(t *testing.T) {
			j := letter(1, 1)
			j.Head = []byte("x-head: 1\r\n")
			j.Env.Size = int64(len(content))
			j.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
			send(r.connect(t, r.on(t, rung{L3, 1})), j)
			if got := r.accepted[0].body; got != string(j.Head)+want {
				t.Errorf("%q arrives as %q", content, got)
			}
		})
	}
}

// With a window more than one is sent before done has returned, and never more than the window.
func TestNoMoreThanTheWindowIsUndone(t *testing.T) {
	for _, w := range []int{1, 2, 5, WindowMax} {
		r := &relay{offers: chunking}
		inBubble(t, r, func(t *testing.T) {
			level := L4
			if w == 1 {
				level = L3
			}
			jobs := letters(30, 1)
			opened := 0
			for _, j := range jobs {
				open := j.Open
				j.Open = func() (io.ReadCloser, error) { opened++; return open() }
			}
			done := 0
			feed := make(chan *Job, len(jobs))
			for _, j := range jobs {
				feed <- j
			}
			close(feed)
			r.connect(t, r.on(t, rung{level, w})).Run(feed, func(*Result) {
				<-time.After(time.Minute) // a slow journal
				synctest.Wait()
				if opened > done+w {
					t.Errorf("window %d: %d opened, %d done", w, opened, done)
				}
				done++
			})
			if done != 30 {
				t.Errorf("window %d: %d done", w, done)
			}
		})
	}
}

// A refusal of a content is certain when the next message is answered in its place, and that one does not wait until then.
func TestTheNextMessageMakesARefusalCertain(t *testing.T) {
	for _, late := range []bool{false, true} { // the next comes while the connection already waits
		r := &relay{offers: chunking, oneWay: 10 * time.Millisecond, script: map[string]act{"DOT 1": {reply: "432 4.3.2 too many"}}}
		inBubble(t, r, func(t *testing.T) {
			c := r.connect(t, r.on(t, rung{L3, 1}))
			jobs := letters(2, 1)
			feed := make(chan *Job, len(jobs))
			feed <- jobs[0]
			hand := func() { feed <- jobs[1]; close(feed) }
			if late {
				time.AfterFunc(confirmMax/2, hand)
			} else {
				hand()
			}
			began := time.Now()
			var results []*Result
			var told time.Duration
			c.Run(feed, func(r *Result) {
				results = append(results, r)
				if len(results) == 1 {
					told = time.Since(began)
				}
			})
			r.checkTruth(t, jobs, results)
			if len(results) != 2 || told > confirmMax*3/4 {
				t.Errorf("late %t: %d results, the refusal was told after %v", late, len(results), told)
			}
		})
	}
}

// Who says goodbye together with a refusal is given nothing more, though a message waits.
func TestNothingIsBegunBehindARefusalThatComesWithAFarewell(t *testing.T) {
	r := &relay{offers: chunking, oneWay: 10 * time.Millisecond, script: map[string]act{"DOT 1": {reply: "554 5.6.0 refused\n421 4.3.2 leaving"}}}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(2, 1)
		opened := false
		open := jobs[1].Open
		jobs[1].Open = func() (io.ReadCloser, error) { opened = true; return open() }
		results, out := send(r.connect(t, r.on(t, rung{L3, 1})), jobs...)
		if opened || len(results) != 1 || results[0].Verdicts[0].Reply.Code != 554 || out.Class != flowctl.IdleClose {
			t.Errorf("%d results, %+v, the next was begun: %t", len(results), out, opened)
		}
	})
}
