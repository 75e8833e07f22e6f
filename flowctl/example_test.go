package flowctl_test

import (
	"fmt"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// A pool in front of any upstream that limits connections reports what happens, asks for a plan, and does what it says.
func ExampleController() {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c, err := flowctl.New(flowctl.Config{MaxConns: 10}, 1, now)
	if err != nil {
		panic(err)
	}
	demand := flowctl.Demand{Ready: 100}

	plan := c.Plan(now, demand)
	fmt.Println("dials:", len(plan.Dial))
	c.DialStart(now, 1, plan.Dial[0])
	c.DialDone(now.Add(100*time.Millisecond), 1, flowctl.Outcome{Class: flowctl.OK, Took: 100 * time.Millisecond})

	now = now.Add(100 * time.Millisecond)
	fmt.Println("sends:", c.Plan(now, demand).Send)
	c.SendStart(now, 1, 1, 1)
	now = now.Add(200 * time.Millisecond)
	c.SendDone(now, 1, flowctl.Outcome{Class: flowctl.OK, Stage: flowctl.StageDot, Took: 200 * time.Millisecond})

	s := c.Snapshot(now)
	fmt.Println("width:", s.Width, s.State)
	// Output:
	// dials: 1
	// sends: 1
	// width: 2 slow_start
}
