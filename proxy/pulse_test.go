package proxy

import (
	"testing"
	"time"
)

func TestLivenessFailsOnlyWhenARestartWouldHelp(t *testing.T) {
	var none time.Time
	for _, c := range []struct {
		name string
		set  func(p *pulse)
		live bool
	}{
		{"before the first beat", func(p *pulse) {}, true},
		{"a beat not long ago", func(p *pulse) { p.beat(noon.Add(-patience)) }, true},
		{"no beat for long", func(p *pulse) { p.beat(noon.Add(-patience - 1)) }, false},
		{"work that may be sent, and is", func(p *pulse) {
			p.beat(noon)
			p.plan(noon.Add(-time.Hour), true, true, none)
		}, true},
		{"work that may not be sent", func(p *pulse) {
			p.beat(noon)
			p.plan(noon.Add(-time.Hour), false, false, none)
		}, true},
		{"work that may be sent, and is not, for a moment", func(p *pulse) {
			p.beat(noon)
			p.plan(noon.Add(-time.Hour), true, false, none)
			p.plan(noon.Add(-patience), true, true, none)
			p.plan(noon.Add(-patience), true, false, none)
		}, true},
		{"work that may be sent, and is not, for long", func(p *pulse) {
			p.beat(noon)
			p.plan(noon.Add(-time.Hour), true, false, none)
			p.plan(noon.Add(-time.Minute), true, false, none)
		}, false},
		{"a reply that takes its time", func(p *pulse) {
			p.beat(noon)
			p.plan(noon, true, true, noon.Add(time.Minute))
		}, true},
		{"a connection past all deadlines", func(p *pulse) {
			p.beat(noon)
			p.plan(noon, true, true, noon.Add(-time.Second))
		}, false},
	} {
		p := new(pulse)
		c.set(p)
		if err := p.check(noon); (err == nil) != c.live {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
