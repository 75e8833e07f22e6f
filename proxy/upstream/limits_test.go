package upstream

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

func TestLimitsAreReadAndJunkIsNot(t *testing.T) {
	for _, tc := range []struct {
		line string
		want Limits
	}{
		{"LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", Limits{Mails: 5, Rcpts: 20, Domains: 1}},
		{"limits rcptmax=999999", Limits{Rcpts: 999999}},
		{"LIMITS", Limits{}},
		{"LIMITS RCPTMAX= MAILMAX RCPTDOMAINMAX=0", Limits{}},
		{"LIMITS RCPTMAX=-1 MAILMAX=1000000 RCPTDOMAINMAX=1x", Limits{}},
		{"LIMITS RCPTMAX=02 MAILMAX=+2 RCPTDOMAINMAX=1.5", Limits{}},
		{"LIMITS WHATEVER=3 RCPTMAX=x RCPTMAX=2 =7", Limits{Rcpts: 2}},
		{"LIMITSX RCPTMAX=2", Limits{}},
	} {
		if got := parseExtensions([]string{"relay.example", tc.line}, nil).Limits; got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.line, got, tc.want)
		}
	}
}

// sendEach feeds jobs to one connection after the other, each until it ends on its own, with what was handed back and what is left of
// split ones fed again, as the dispatcher does.
func sendEach(t *testing.T, r *relay, cl *Client, jobs ...*Job) (results []*Result, sessions int) {
	t.Helper()
	for len(jobs) > 0 {
		if sessions++; sessions > 100 {
			t.Fatalf("%d jobs left after %d sessions", len(jobs), sessions)
		}
		feed := make(chan *Job, len(jobs))
		for _, j := range jobs {
			feed <- j
		}
		close(feed)
		jobs = nil
		handedBack := 0
		again := func(j *Job, to []int) {
			if len(to) > 0 {
				jobs = append(jobs, &Job{Env: j.Env, To: to, Open: j.Open})
			}
		}
		out := r.connect(t, cl).Run(feed, func(res *Result) {
			if res.HandedBack {
				if handedBack++; handedBack > 1 {
					t.Error("a session that can take no more took more")
				}
				again(res.Job, res.Job.To)
				return
			}
			results = append(results, res)
			var to []int
			for i, v := range res.Verdicts {
				if v.Split {
					to = append(to, res.Job.To[i])
				}
			}
			again(res.Job, to)
		})
		if out.Class != flowctl.OK {
			t.Fatalf("a session ended with %+v", out)
		}
		for j := range feed {
			jobs = append(jobs, j)
		}
	}
	return results, sessions
}

// counts returns what the relay was sent in each session: MAIL commands, the most RCPTs of one of them, and domains.
func (r *relay) counts() (mails, rcpts, domains []int) {
	seen := map[string]bool{}
	n := 0
	for _, l := range r.lines {
		last := len(mails) - 1
		switch verb, _, _ := strings.Cut(l, " "); verb {
		case "EHLO":
			mails, rcpts, domains = append(mails, 0), append(rcpts, 0), append(domains, 0)
			clear(seen)
		case "MAIL":
			mails[last]++
			n = 0
		case "RCPT":
			n++
			rcpts[last] = max(rcpts[last], n)
			if d := message.Domain(between(l)); !seen[d] {
				seen[d] = true
				domains[last]++
			}
		}
	}
	return mails, rcpts, domains
}

// The upstream's limits are kept: nothing is refused, everybody gets everything once, and nothing is a signal for the width.
func TestLimitsAreObeyed(t *testing.T) {
	for _, at := range allRungs {
		for _, tc := range []struct {
			limits                        string
			sessions, mails, rcpts, names int // at most, of each
		}{
			{"", 1, 100, 5, 3},
			{"MAILMAX=3", 4, 3, 5, 3},
			{"MAILMAX=1", 10, 1, 5, 3},
			{"RCPTMAX=2", 3, 100, 2, 3}, // a session more for what is left: the feed was closed
			{"RCPTMAX=1", 5, 100, 1, 3},
			{"RCPTDOMAINMAX=1", 100, 100, 5, 1},
			{"RCPTDOMAINMAX=2", 100, 100, 5, 2},
			{"RCPTDOMAINMAX=2 RCPTMAX=1 MAILMAX=2", 100, 2, 1, 2},
		} {
			t.Run(at.name()+" "+tc.limits, func(t *testing.T) {
				r := &relay{offers: append([]string{"LIMITS " + tc.limits}, chunking...)}
				inBubble(t, r, func(t *testing.T) {
					jobs := letters(10, 5)
					for k, j := range jobs {
						for i := range j.Env.To {
							j.Env.To[i].Addr = fmt.Sprintf("r%d.%d@d%d.example", i, k+1, (i+k/3)%3)
						}
					}
					results, sessions := sendEach(t, r, r.on(t, at), jobs...)
					for _, res := range results {
						if res.Signal.Class != flowctl.OK {
							t.Errorf("signal %+v", res.Signal)
						}
					}
					for _, j := range jobs {
						for i := range j.To {
							if n := r.took(j, i); n != 1 {
								t.Errorf("%s to %d: %d times", j.Env.From, i, n)
							}
						}
					}
					mails, rcpts, domains := r.counts()
					if sessions > tc.sessions || slices.Max(mails) > tc.mails || slices.Max(rcpts) > tc.rcpts || slices.Max(domains) > tc.names {
						t.Errorf("%d sessions; of each MAILs %v, most RCPTs %v, domains %v", sessions, mails, rcpts, domains)
					}
				})
			})
		}
	}
}

// Those that were not named share a refusal of MAIL, and are not asked for again one by one.
func TestARefusedMailIsRefusedForAll(t *testing.T) {
	r := &relay{offers: []string{"PIPELINING", "LIMITS RCPTMAX=1"}, script: map[string]act{"MAIL 1": {reply: "451 4.3.0 later"}, "MAIL 2": {reply: "550 5.7.1 <x> no"}}}
	inBubble(t, r, func(t *testing.T) {
		results, _ := send(r.connect(t, r.client(t, Config{})), letters(2, 3)...)
		for k, want := range []int{451, 550} {
			for i, v := range results[k].Verdicts {
				if v.Split || v.Reply.Code != want {
					t.Errorf("message %d, recipient %d: %+v", k+1, i+1, v)
				}
			}
		}
	})
}

// Who asked for a report of success must be told of those whom the upstream will send none for.
func TestReportsThatWillNotComeAreNamed(t *testing.T) {
	for _, tc := range []struct {
		offers []string
		want   []int
	}{{[]string{"PIPELINING"}, []int{1, 3}}, {[]string{"DSN"}, nil}} {
		r := &relay{offers: tc.offers, script: map[string]act{"RCPT 3": {reply: "550 5.1.1 unknown"}}}
		inBubble(t, r, func(t *testing.T) {
			j := letter(1, 4)
			for i, notify := range []string{"NEVER", "SUCCESS,DELAY", "SUCCESS", "FAILURE,SUCCESS"} {
				j.Env.To[i].Notify = notify
			}
			results, _ := send(r.connect(t, r.client(t, Config{})), j)
			if got := results[0].Unreported; !slices.Equal(got, tc.want) {
				t.Errorf("%q offered: %v, want %v", tc.offers, got, tc.want)
			}
		})
	}
}

func TestEightBitMailIsSentAsItIsUnlessToldOtherwise(t *testing.T) {
	for setting, want := range map[string]string{"": "250 ", EightBitSend: "250 ", EightBitReject: "554 5.6.3 "} {
		r := &relay{offers: []string{"PIPELINING"}}
		inBubble(t, r, func(t *testing.T) {
			eight, seven := letter(1, 2), letter(2, 1)
			eight.Env.Body8 = true
			results, out := send(r.connect(t, r.client(t, Config{EightBit: setting})), eight, seven)
			for _, v := range results[0].Verdicts {
				if !strings.HasPrefix(v.Reply.String(), want) || v.Local != (want != "250 ") {
					t.Errorf("%q: %+v", setting, v)
				}
			}
			if results[1].Verdicts[0].Class != flowctl.OK || out.Class != flowctl.OK {
				t.Errorf("%q: the next one: %+v, %+v", setting, results[1].Verdicts, out)
			}
		})
	}
}
