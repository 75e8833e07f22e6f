package config

import (
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/oauth"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// Upstream is everything about one of several upstreams.
type Upstream struct {
	Name     string // as routes name it; admin.DefaultUpstream
	Relay    upstream.Config
	OAuth    oauth.Config
	Flow     flowctl.Config
	GroupMax int // recipients of one transaction; 0: as many as every relay takes
}

// Upstreams returns the default one and then those that routes name. Table has their places in this list.
func (c *Config) Upstreams() []Upstream {
	return append([]Upstream{{Name: admin.DefaultUpstream, Relay: c.Upstream, OAuth: c.OAuth, Flow: c.Flow, GroupMax: c.Queue.GroupMax}}, c.Others...)
}
