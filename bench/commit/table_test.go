//go:build commit && linux

package commit

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	table   = flag.Bool("table", false, "measure everything and print the table; takes minutes")
	measure = flag.Duration("measure", 2*time.Second, "of each measurement of the table")
)

// server is a column of what is compared: it takes a load and says how it did.
type server struct {
	name string
	run  func(*testing.T, load) result
}

// row is what the rounds of one server and load came to.
type row struct {
	load    load
	server  string
	results []result // by rate
}

// TestTable prints what was measured, in rounds that take turns: what else the machine does meanwhile then hits all alike.
func TestTable(t *testing.T) {
	if !*table {
		t.Skip("wants -table")
	}
	servers := []server{
		{"mailweir", func(t *testing.T, l load) result { return measureDoor(t, l, true) }},
		{"mailweir, unsynced", func(t *testing.T, l load) result { return measureDoor(t, l, false) }},
	}
	servers = append(servers, rivals()...)
	var rows []*row
	for _, each := range []bool{false, true} {
		for _, senders := range []int{1, 10, 100, 500} {
			l := load{Senders: senders, Each: each, Warm: *measure / 4, Measure: *measure}
			for _, s := range servers {
				rows = append(rows, &row{load: l, server: s.name})
			}
		}
	}
	var disks []disk
	for range rounds {
		for i, r := range rows {
			if i%len(servers) == 0 {
				disks = append(disks, measureDisk(t))
			}
			r.results = append(r.results, servers[i%len(servers)].run(t, r.load))
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	for _, r := range rows {
		slices.SortFunc(r.results, func(a, b result) int { return cmp.Compare(a.Rate, b.Rate) })
	}
	fmt.Print(describe(disks))
	if err := print(rows); err != nil {
		t.Error(err)
	}
}

func describe(disks []disk) string {
	of := func(which func(disk) syncing) string {
		slices.SortFunc(disks, func(a, b disk) int { return cmp.Compare(which(a).rate, which(b).rate) })
		mid := which(disks[len(disks)/2])
		return fmt.Sprintf("%.0f/s (%.0f to %.0f), median %v", mid.rate,
			which(disks[0]).rate, which(disks[len(disks)-1]).rate, mid.median.Round(time.Microsecond))
	}
	return fmt.Sprintf("The disk, 8 KiB and fdatasync, one thread: allocated blocks %s; written blocks %s\n",
		of(func(d disk) syncing { return d.fresh }), of(func(d disk) syncing { return d.again }))
}

// print writes the median of the rounds, and the range of their rates.
func print(rows []*row) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := strings.Join([]string{"senders", "served", "server", "msg/s", "from", "to", "of unsynced", "syncs/msg",
		"p50 ms", "p99 ms", "CPU us/msg", "of source", ""}, "\t")
	for i, r := range rows {
		if i == 0 || rows[i-1].load.Each != r.load.Each {
			fmt.Fprintf(w, "%s:\n%s\n", way(r.load), head)
		}
		m := r.results[len(r.results)/2]
		fmt.Fprintf(w, "%d\t%d\t%s\t%.0f\t%.0f\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.load.Senders, m.Served, r.server,
			m.Rate, r.results[0].Rate, r.results[len(r.results)-1].Rate, share(rows, r), known("%.3f", m.Syncs),
			ms(m.P50), ms(m.P99), known("%.0f", float64(m.Spent.Microseconds())), known("%.0f", float64(m.Asked.Microseconds())))
	}
	return w.Flush()
}

func way(l load) string {
	if l.Each {
		return "A connection for each message, one command at a time"
	}
	return "One connection for each sender, pipelined"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1e3) }

// known leaves out what was not measured.
func known(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

// share compares mailweir with itself without syncs: the best of the rounds that stood side by side would flatter, so the medians.
func share(rows []*row, r *row) string {
	if r.server != "mailweir" {
		return "-"
	}
	for _, other := range rows {
		if other.load == r.load && other.server == "mailweir, unsynced" {
			return fmt.Sprintf("%.0f %%", 100*r.results[len(r.results)/2].Rate/other.results[len(other.results)/2].Rate)
		}
	}
	return "-"
}
