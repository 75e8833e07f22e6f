package model

import (
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Law decides for one pod. *flowctl.Controller is one; the meaning of each method is described there.
type Law interface {
	DialStart(now time.Time, id flowctl.ConnID, addr string)
	DialDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome)
	SendStart(now time.Time, id flowctl.ConnID, msgs, rcpts int)
	SendDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome)
	Closed(now time.Time, id flowctl.ConnID, o flowctl.Outcome)
	Plan(now time.Time, d flowctl.Demand) flowctl.Plan
}

var _ Law = (*flowctl.Controller)(nil)

// Team is what the laws of one run may share. Only a law that imagines a perfect coordinator uses more than Config.
type Team struct {
	Config flowctl.Config
	Budget *Budget // nil: there is none
	Pods   int
	Limit  int                // connections the upstream allows at the start; 0: any number
	Poke   func(pod int) bool // has the pod ask for a plan at this very moment; false: it has left
	Shared map[string]any     // empty at the start of a run
}

// Maker makes the law of one pod. It is called when the pod joins.
type Maker func(t *Team, pod int, seed uint64, now time.Time) (Law, error)

// Flowctl makes the real controller.
func Flowctl(t *Team, pod int, seed uint64, now time.Time) (Law, error) {
	c, err := flowctl.New(t.Config, seed, now)
	if err != nil {
		return nil, err
	}
	c.SetAddresses(now, []flowctl.Address{{Name: Address}})
	if t.Budget != nil {
		return newMember(t, pod, c), nil
	}
	return c, nil
}

// Address is where the model's upstream is dialled.
const Address = "upstream:25"
