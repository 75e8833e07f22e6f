//go:build throng && linux

package throng

import (
	"errors"
	"flag"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
)

var (
	weirs   = flag.Int("weirs", 20, "processes beside one relay")
	bulk    = flag.Int("bulk", 4, "those of them that have bulk mail where the others have some now and then")
	limit   = flag.Int("limit", 10, "connections that the relay allows")
	service = flag.Duration("service", 30*time.Millisecond, "what the relay needs for a message")
	scale   = flag.Float64("scale", 0.03, "MAILWEIR_TIME_SCALE of the processes")
	warmup  = flag.Duration("warmup", 20*time.Second, "from the start of the relay to the start of measurement; half of it but for shares")
	measure = flag.Duration("measure", time.Minute, "of measurement of shares; half of it beside a trickle, and a third where there is one process")
	trickle = flag.Duration("trickle", time.Second, "between two messages of a process without bulk mail, on average")
	logs    = flag.String("logs", "", "existing directory for the processes' logs, with what the flow control decided and why; empty: errors only, and not kept")
	room    = flag.String("room", "/dev/shm", "directory of journals and logs; in memory, since no disk is to be measured")
)

// binary is the path of the mailweir under test.
var binary string

func TestMain(m *testing.M) { rig.Main(m, &binary, valid) }

func valid() error {
	if *weirs < 1 || *bulk < 1 || *bulk >= *weirs || *limit < 1 || *service <= 0 || *scale <= 0 || *measure <= 0 || *trickle <= 0 {
		return errors.New("throng: flags: everything must be positive, and -bulk less than -weirs")
	}
	return nil
}

// A bar is meant for a long measurement, in which every process has had dozens of turns. In a short one chance has a say: it is as far
// from the bar as the worst of twenty runs of the simulation may be.
const (
	longMeasure      = 2 * time.Minute
	jainSlack        = 0.05
	utilisationSlack = 0.02
	countSlack       = 1.5
)

// least and most are a bar for this run.
func least(bar, slack float64) float64 {
	if *measure < longMeasure {
		return bar - slack
	}
	return bar
}

func most(bar, slack float64) float64 {
	if *measure < longMeasure {
		return bar * slack
	}
	return bar
}

// scaled is what takes d in service.
func scaled(d time.Duration) time.Duration { return time.Duration(float64(d) * *scale) }
