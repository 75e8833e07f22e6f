//go:build flight && linux

package flight

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/upstream"
)

var exim = flag.String("exim", "", "path of Exim's binary; none: it is left out")

const (
	rtt  = 40 * time.Millisecond
	size = 2048 // octets of a message

	// What the levels must bring, in messages of one command at a time.
	barL2 = 3
	barL4 = 25
	barL3 = 0.9 // of L2: both are a message a round trip, and runs differ by some hundredths
)

// way is how a connection is used.
type way struct {
	level            upstream.Level
	without          string // what the server does not offer
	window           string
	warmup, messages int // the level is reached in the first
}

var ways = []way{
	{upstream.L0, "pipelining, chunking", "1", 3, 25},
	{upstream.L2, "chunking", "1", 40, 100},
	{upstream.L3, "", "1", 40, 100},
	{upstream.L4, "", "4", 100, 400},
	{upstream.L4, "", "16", 200, 1600},
}

// TestEachLevelOverADistance sends over one connection with a round trip of 40 ms.
func TestEachLevelOverADistance(t *testing.T) {
	servers := map[string]func(t *testing.T, without string) string{"Postfix": startPostfix}
	names := []string{"Postfix"}
	if *exim != "" {
		servers["Exim"] = startExim
		names = append(names, "Exim")
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "server\tlevel\twindow\tmessages/s\tof L0\t")
	for _, name := range names {
		rates := map[string]float64{}
		for _, how := range ways {
			t.Run(fmt.Sprintf("%s %v %s", name, how.level, how.window), func(t *testing.T) {
				rate := how.measure(t, rig.Delay(t, servers[name](t, how.without), rtt/2))
				rates[how.level.String()+"/"+how.window] = rate
				fmt.Fprintf(w, "%s\t%v\t%s\t%.1f\t%.1f\t\n", name, how.level, how.window, rate, rate/rates["L0/1"])
			})
		}
		l0 := rates["L0/1"]
		if rates["L2/1"] < barL2*l0 || rates["L4/16"] < barL4*l0 {
			t.Errorf("%s: L2 %.1f times L0, want %d; L4 %.1f times, want %d", name, rates["L2/1"]/l0, barL2, rates["L4/16"]/l0, barL4)
		}
		if rates["L3/1"] < barL3*rates["L2/1"] { // or it must not be the default
			t.Errorf("%s: L3 %.1f a second, L2 %.1f", name, rates["L3/1"], rates["L2/1"])
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("one connection, round trip %v, %d octets a message\n%s", rtt, size, table.String())
}

// measure returns how many messages a second the connection carries.
func (how way) measure(t *testing.T, address string) float64 {
	client, err := upstream.New(upstream.Config{URL: "smtp://" + address, Hostname: "flight.example", TLS: "none", Window: how.window})
	if err != nil {
		t.Fatal(err)
	}
	conn, out := client.Connect(context.Background(), "")
	if conn == nil {
		t.Fatalf("connect: %+v", out)
	}
	total := how.warmup + how.messages
	feed := make(chan *upstream.Job, total)
	for n := range total {
		feed <- job(n)
	}
	close(feed)
	var began, ended time.Time
	done := 0
	out = conn.Run(feed, func(r *upstream.Result) {
		if r.HandedBack || r.Verdicts[0].Class != flowctl.OK {
			t.Errorf("message %d: %+v", done, r)
		}
		switch done++; done {
		case how.warmup:
			began = time.Now()
		case total:
			ended = time.Now()
		}
	})
	if s := client.Standing(); done != total || out.Class != flowctl.OK || s.Level != how.level || s.Downs > 0 {
		t.Fatalf("%d of %d, %+v, %+v", done, total, out, s)
	}
	return float64(how.messages) / ended.Sub(began).Seconds()
}

func job(n int) *upstream.Job {
	text := fmt.Sprintf("From: <a@example.org>\r\nTo: <b@example.net>\r\nSubject: %d\r\nMessage-ID: <%d@flight.example>\r\nDate: Fri, 01 May 2026 12:00:00 +0000\r\n\r\n", n, n)
	text += strings.Repeat(strings.Repeat("x", 62)+"\r\n", (size-len(text))/64)
	env := &message.Envelope{ID: message.ID(n + 1), From: "a@example.org", To: []message.Recipient{{Addr: "b@example.net"}}, Size: int64(len(text))}
	return &upstream.Job{Env: env, To: []int{0}, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

// startPostfix takes and discards; what is measured is the way there.
func startPostfix(t *testing.T, without string) string {
	return rig.NewPostfix(t, rig.Scratch(t, ""), "127.0.0.1:9", "smtpd_discard_ehlo_keywords = "+without, "default_transport = discard:", "relay_transport = discard:",
		"smtpd_client_connection_count_limit = 0").Address
}

func startExim(t *testing.T, without string) string {
	options := []string{"smtp_accept_max_per_connection = 0"}
	for keyword := range strings.SplitSeq(without, ", ") {
		if keyword != "" {
			options = append(options, keyword+"_advertise_hosts =")
		}
	}
	return rig.NewExim(t, *exim, rig.Scratch(t, ""), options...).Address
}
