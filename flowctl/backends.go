package flowctl

import "time"

// Several upstreams may stand behind one address, each with a limit of its own. A refusal then says that one of them is full, not how many
// connections fit; and the look at a place that was left free is likely not to find it, though nobody took it.
//
// So now and then a look that was refused is repeated at once. Where all places are taken it is refused again, for one is seldom given
// up in just that moment; where there are several backends it mostly leads to another one. Others with single messages give places back
// all the time, and a repeated look finds one of those often enough: so it takes most of many tests, and who is wrong all the same
// holds nearly everything until as many tests say so.

// Constants of this test. All times scale with Config.Scale.
const (
	testEvery    = 2                      // refused looks there is one that is repeated,
	testRare     = 16                     // down to one of so many as long as nearly all are refused again,
	testWithin   = 100 * time.Millisecond // at once
	testBeside   = 3                      // connections held: with fewer there is nothing to gain
	testWindow   = 20                     // tests are judged together,
	testAccepted = 12                     // of which so many are accepted where there are several;
	testStill    = 3                      // with fewer than these that is no longer believed
	severalLooks = 8                      // at a place before it is given up, where there are several
)

// backends is what such tests said. The zero value: nothing yet.
type backends struct {
	several  bool
	looks    int // refused, since the last test
	every    int // so many a test; 0: testEvery
	refused  int // tests in this window
	accepted int
}

// test says whether a look that was refused is to be repeated at once. held is how many connections there are.
func (b *backends) test(held int) bool {
	if held < testBeside {
		return false
	}
	b.looks++
	if b.looks < max(b.every, testEvery) {
		return false
	}
	b.looks = 0
	return true
}

// tested takes the outcome of a test, and says whether something else is believed now.
func (b *backends) tested(accepted bool) (changed bool) {
	if accepted {
		b.accepted++
	} else {
		b.refused++
	}
	before, full := b.several, b.refused+b.accepted >= testWindow
	switch {
	case !b.several && b.accepted >= testAccepted:
		b.several, full = true, true
	case !full:
	case b.several:
		b.several = b.accepted >= testStill
	case b.accepted < testStill:
		b.every = min(2*max(b.every, testEvery), testRare)
	default:
		b.every = testEvery
	}
	if full {
		b.refused, b.accepted = 0, 0
	}
	return b.several != before
}

// dialTested takes in how a dial ended, if it was a test.
func (c *Controller) dialTested(now time.Time, k *conn, accepted bool) {
	if !k.test || c.slowStart || !c.lease.backends.tested(accepted) {
		return
	}
	if c.lease.backends.several {
		c.lease.backends.every = testEvery
		c.gap = c.cfg.ProbeMin // all that refused probes have said was about one of them
	}
	c.scheduleProbe(now, false)
}
