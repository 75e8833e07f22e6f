package flowctl

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config bounds a Controller. The zero value is usable: every zero field means its default.
type Config struct {
	MaxConns         int           // connections, hard ceiling; 0: 20
	PerSecond        float64       // transactions a second, a static ceiling; 0: none
	Gain             bool          // keep a wider pool only if it delivers more, for an upstream that gets slower and never refuses; false: it is the refusals that count
	ProbeMin         time.Duration // first pause before a probe above the ceiling; 0: 1 s
	ProbeMax         time.Duration // longest such pause; 0: 60 s
	OpenMin          time.Duration // breaker: first pause; 0: 2 s
	OpenMax          time.Duration // breaker: longest pause; 0: 60 s
	Linger           time.Duration // how long an idle connection stays warm while none was refused, unless the upstream shows less; 0: 5 s
	RecipientsPerDay int           // recipients in a rolling 24 hours, a static ceiling; 0: none
	Patience         float64       // factor on the pauses of a process that waits for a connection while others hold all; above 1 fewer dials are refused and shares are a little less equal, for fleets of many hundreds; 0: 1
	Scale            float64       // factor on every time here and every constant of time, so that tests of real processes can run faster; 0: 1
}

// Bounds of what can be configured.
const (
	MaxConnsLimit = 1000  // connections to one upstream
	scaleMin      = 0.001 // below it, pauses shrink to the grain of timers
	scaleMax      = 1000
	patienceMin   = 0.1
	patienceMax   = 10
	timeMax       = 7 * 24 * time.Hour // any single time; keeps doubling and scaling far from overflow
)

// Validate reports every fault at once; it changes nothing. New and Reconfigure call it.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("flowctl: validate "+format, args...))
	}
	if c.MaxConns < 0 || c.MaxConns > MaxConnsLimit {
		fault("max_connections: %d is not in 0..%d", c.MaxConns, MaxConnsLimit)
	}
	if !(c.PerSecond >= 0) || math.IsInf(c.PerSecond, 0) {
		fault("rate_per_second: %v is neither 0 nor a positive number", c.PerSecond)
	}
	if c.RecipientsPerDay < 0 {
		fault("recipients_per_day: %d is negative", c.RecipientsPerDay)
	}
	if c.Scale != 0 && !(c.Scale >= scaleMin && c.Scale <= scaleMax) {
		fault("time_scale: %v is neither 0 nor in %v..%v", c.Scale, scaleMin, scaleMax)
	}
	if c.Patience != 0 && !(c.Patience >= patienceMin && c.Patience <= patienceMax) {
		fault("patience: %v is neither 0 nor in %v..%v", c.Patience, patienceMin, patienceMax)
	}
	for _, t := range []struct {
		name string
		d    time.Duration
	}{
		{"ProbeMin", c.ProbeMin}, {"ProbeMax", c.ProbeMax},
		{"OpenMin", c.OpenMin}, {"OpenMax", c.OpenMax}, {"Linger", c.Linger},
	} {
		if t.d < 0 || t.d > timeMax {
			fault("%s: %v is not in 0..%v", t.name, t.d, timeMax)
		}
	}
	if d := c.resolved(); d.ProbeMin > d.ProbeMax {
		fault("ProbeMin: greater than ProbeMax")
	}
	if d := c.resolved(); d.OpenMin > d.OpenMax {
		fault("OpenMin: greater than OpenMax")
	}
	return errors.Join(faults...)
}

// resolved returns c with the defaults in place of zeroes and its times scaled.
func (c Config) resolved() Config {
	if c.Scale == 0 {
		c.Scale = 1
	}
	if c.Patience == 0 {
		c.Patience = 1
	}
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = c.scaled(*d)
	}
	if c.MaxConns == 0 {
		c.MaxConns = 20
	}
	or(&c.ProbeMin, time.Second)
	or(&c.ProbeMax, time.Minute)
	or(&c.OpenMin, 2*time.Second)
	or(&c.OpenMax, time.Minute)
	or(&c.Linger, 5*time.Second)
	return c
}

// scaled returns d by the time scale.
func (c *Config) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * c.Scale)
}
