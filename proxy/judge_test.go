package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// resultOf makes the result of one transaction to recipients at the given domains.
func resultOf(id message.ID, verdicts []upstream.Verdict, domains ...string) *upstream.Result {
	env := &message.Envelope{ID: id}
	job := &upstream.Job{Env: env}
	signal := flowctl.Outcome{Started: noon.Add(-time.Second), Stage: flowctl.StageDot}
	for i, d := range domains {
		env.To = append(env.To, message.Recipient{Addr: fmt.Sprintf("u%d@%s", i, d)})
		job.To = append(job.To, i)
	}
	for _, v := range verdicts {
		signal.Class = max(signal.Class, v.Class)
	}
	return &upstream.Result{Job: job, Verdicts: verdicts, Signal: signal, Finished: noon}
}

func said(class flowctl.Class, code int) upstream.Verdict {
	return upstream.Verdict{Class: class, Reply: upstream.Reply{Code: code, Text: class.String()}}
}

// String shows a judgement in the words of the tables below.
func (j judgement) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "delivered%v failed%v", j.Delivered, j.Failed)
	for _, x := range j.Rests {
		fmt.Fprintf(&b, " %s%v", [...]string{again: "again", byUpstream: "upstream", byHost: "host", byRecipient: "recipient", byUncertain: "uncertain", inDoubt: "doubt"}[x.How], x.To)
	}
	return b.String()
}

func TestEveryRecipientGetsWhatItsReplyMeans(t *testing.T) {
	const a, b = "a.example", "b.example"
	taken, perm, temp := said(flowctl.OK, 250), said(flowctl.Permanent, 550), said(flowctl.PerMessage, 450)
	split := temp
	split.Split = true
	second := resultOf(1, []upstream.Verdict{said(flowctl.SessionCap, 421)}, a)
	second.Reused = true
	for _, c := range []struct {
		name string
		r    *upstream.Result
		want string
	}{
		{"all taken", resultOf(1, []upstream.Verdict{taken, taken}, a, b), "delivered[0 1] failed[]"},
		{"a mix", resultOf(1, []upstream.Verdict{taken, perm, temp}, a, a, a), "delivered[0] failed[1] recipient[2]"},
		{"refused alone", resultOf(1, []upstream.Verdict{perm, perm}, a, a), "delivered[] failed[] doubt[0 1]"},
		{"temporary, by domain", resultOf(1, []upstream.Verdict{temp, temp, temp}, a, b, a), "delivered[] failed[] recipient[0 2] recipient[1]"},
		{"too many recipients", resultOf(1, []upstream.Verdict{taken, split, split}, a, a, b), "delivered[0] failed[] again[1 2]"},
		{"too many, though there is one", resultOf(1, []upstream.Verdict{split}, a), "delivered[] failed[] recipient[0]"},
		{"our width", resultOf(1, []upstream.Verdict{said(flowctl.Busy, 432)}, a), "delivered[] failed[] again[0]"},
		{"messages per connection", second, "delivered[] failed[] again[0]"},
		{"not one message per connection", resultOf(1, []upstream.Verdict{said(flowctl.SessionCap, 421)}, a), "delivered[] failed[] upstream[0]"},
		{"rate", resultOf(1, []upstream.Verdict{said(flowctl.RateLimited, 454)}, a), "delivered[] failed[] upstream[0]"},
		{"pressure", resultOf(1, []upstream.Verdict{said(flowctl.Overload, 452)}, a), "delivered[] failed[] upstream[0]"},
		{"quota, once", resultOf(1, []upstream.Verdict{said(flowctl.Quota, 550)}, a), "delivered[] failed[] recipient[0]"},
		{"relay denied, once", resultOf(1, []upstream.Verdict{said(flowctl.Misconfigured, 554)}, a), "delivered[] failed[] recipient[0]"},
	} {
		if got := judge(noon, c.r, queue.Delivery{}, new(fuse)).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestWhatWasNotDecided(t *testing.T) {
	handedBack := func(class flowctl.Class, reused bool) *upstream.Result {
		r := resultOf(1, nil, "a.example")
		r.HandedBack, r.Reused, r.Signal.Class = true, reused, class
		return r
	}
	uncertain := resultOf(1, []upstream.Verdict{said(flowctl.Overload, 0)}, "a.example")
	uncertain.Uncertain, uncertain.Verdicts[0].Unheard = true, true
	damaged := resultOf(1, []upstream.Verdict{said(flowctl.PerMessage, 0)}, "a.example")
	damaged.Err = fmt.Errorf("body: %w", journal.ErrDamaged)
	for _, c := range []struct {
		name  string
		r     *upstream.Result
		tries queue.Tries
		want  string
	}{
		{"a stale warm connection costs nothing", handedBack(flowctl.Unavailable, true), queue.Tries{}, "again[0]"},
		{"but only once", handedBack(flowctl.Unavailable, true), queue.Tries{Strikes: 1}, "upstream[0]"},
		{"a fresh one counts", handedBack(flowctl.Unavailable, false), queue.Tries{}, "upstream[0]"},
		{"our width never does", handedBack(flowctl.Busy, false), queue.Tries{Strikes: 9}, "again[0]"},
		{"no reply to the content", uncertain, queue.Tries{}, "uncertain[0]"},
	} {
		want := "delivered[] failed[] " + c.want
		if got := judge(noon, c.r, queue.Delivery{Tries: c.tries}, new(fuse)).String(); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
	if got := judge(noon, damaged, queue.Delivery{}, new(fuse)).String(); got != "delivered[] failed[0]" {
		t.Errorf("a body that fails its checksum: %s, want a dead message", got)
	}
}

func TestTheFuseStopsAfterTenRefusalsInARow(t *testing.T) {
	f := new(fuse)
	perm := []upstream.Verdict{said(flowctl.Permanent, 554)}
	for id := range message.ID(30) {
		j := judge(noon, resultOf(id+1, perm, fmt.Sprintf("d%d.example", id)), queue.Delivery{}, f)
		want := "delivered[] failed[] doubt[0]"
		if id+1 >= fuseMessages {
			want = "delivered[] failed[] recipient[0]"
		}
		if j.String() != want || (f.tripped != "") != (id+1 >= fuseMessages) {
			t.Fatalf("refusal %d: %s (tripped: %q), want %s", id+1, j, f.tripped, want)
		}
	}
	good := resultOf(99, []upstream.Verdict{said(flowctl.OK, 250)}, "a.example")
	judge(noon, good, queue.Delivery{}, f)
	if f.tripped == "" {
		t.Fatal("a success of a transaction that began before it tripped closed it")
	}
	good.Signal.Started = noon.Add(time.Second)
	judge(noon.Add(2*time.Second), good, queue.Delivery{}, f)
	if j := judge(noon, resultOf(100, perm, "a.example"), queue.Delivery{}, f); f.tripped != "" || j.String() != "delivered[] failed[] doubt[0]" {
		t.Fatalf("after a success: %s (tripped: %q)", j, f.tripped)
	}
}

func TestASuccessBetweenKeepsTheFuse(t *testing.T) {
	f := new(fuse)
	for id := range message.ID(100) {
		v := said(flowctl.Permanent, 550)
		if id%9 == 8 {
			v = said(flowctl.OK, 250)
		}
		judge(noon, resultOf(id+1, []upstream.Verdict{v}, "a.example"), queue.Delivery{}, f)
	}
	if f.tripped != "" {
		t.Fatalf("tripped: %s", f.tripped)
	}
}

func TestOneRecipientsQuotaStopsNobodyElse(t *testing.T) {
	f := new(fuse)
	quota := []upstream.Verdict{said(flowctl.Quota, 552)}
	for range 50 {
		judge(noon, resultOf(1, quota, "full.example"), queue.Delivery{}, f)
	}
	if f.tripped != "" {
		t.Fatalf("one message tripped the fuse: %s", f.tripped)
	}
	judge(noon, resultOf(2, quota, "b.example"), queue.Delivery{}, f)
	judge(noon, resultOf(3, quota, "c.example"), queue.Delivery{}, f)
	if f.tripped == "" {
		t.Fatal("three domains without a success between did not trip it")
	}
}

func TestARepeatedSuspicionIsTheRecipientsOwnWhenOthersGetThrough(t *testing.T) {
	f := new(fuse)
	refused := resultOf(1, []upstream.Verdict{said(flowctl.Misconfigured, 554)}, "a.example")
	thrice := queue.Delivery{Tries: queue.Tries{Suspects: suspectTries}}
	if j := judge(noon, refused, thrice, f); len(j.Failed) != 0 {
		t.Fatalf("died although nobody got through: %s", j)
	}
	f.success(noon.Add(-time.Minute), noon.Add(-time.Minute))
	if j := judge(noon, refused, thrice, f); len(j.Failed) != 1 {
		t.Fatalf("%s, want it dead", j)
	}
}

func TestARefusedRecipientOfAnUncertainTransactionHasItsVerdict(t *testing.T) {
	r := resultOf(1, []upstream.Verdict{said(flowctl.Permanent, 550), said(flowctl.PerMessage, 451)}, "a.example", "a.example")
	r.Uncertain, r.Verdicts[1].Unheard = true, true
	if got := judge(noon, r, queue.Delivery{}, new(fuse)).String(); got != "delivered[] failed[] doubt[0] uncertain[1]" {
		t.Error(got)
	}
}

func TestSplittingEndsWhenNobodyIsTaken(t *testing.T) {
	v := said(flowctl.PerMessage, 452)
	v.Split = true
	if got := judge(noon, resultOf(1, []upstream.Verdict{v, v}, "a.example", "a.example"), queue.Delivery{}, new(fuse)).String(); got != "delivered[] failed[] recipient[0 1]" {
		t.Error(got)
	}
}
