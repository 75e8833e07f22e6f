package admin

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// What is there for each upstream: the default one and at most sixteen that routes name. Addresses are at most 64 each.

const upstreamLabel = "upstream"

func upstreamValue(kind prometheus.ValueType, name, help string, value func(*UpstreamStatus) float64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		for i := range s.Upstreams {
			u := &s.Upstreams[i]
			out <- prometheus.MustNewConstMetric(m.desc, kind, value(u), u.Name)
		}
	}, upstreamLabel)
}

func upstreamGauge(name, help string, value func(*UpstreamStatus) float64) metric {
	return upstreamValue(prometheus.GaugeValue, name, help, value)
}

func upstreamCounter(name, help string, value func(*UpstreamStatus) float64) metric {
	return upstreamValue(prometheus.CounterValue, name, help, value)
}

// upstreamCounters is one counter for each key of a map that has few.
func upstreamCounters(name, help, label string, values func(*UpstreamStatus) map[string]uint64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		for i := range s.Upstreams {
			u := &s.Upstreams[i]
			for key, n := range values(u) {
				out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(n), u.Name, key)
			}
		}
	}, upstreamLabel, label)
}

func addressGauge(name, help string, value func(*AddressStatus) float64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		for i := range s.Upstreams {
			for j := range s.Upstreams[i].Hosts {
				a := &s.Upstreams[i].Hosts[j]
				out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, value(a), s.Upstreams[i].Name, a.Address)
			}
		}
	}, upstreamLabel, "address")
}

var upstreamMetrics = []metric{
	upstreamGauge("upstream_deliveries_pending", "Deliveries for the upstream that have not ended.",
		func(u *UpstreamStatus) float64 { return float64(u.Pending) }),
	upstreamGauge("upstream_width", "Connections that the flow control allows; below 1 they are shared in time.",
		func(u *UpstreamStatus) float64 { return u.Width }),
	upstreamGauge("upstream_ceiling", "Connections at which the upstream refused; 0 when none is known.",
		func(u *UpstreamStatus) float64 { return float64(u.Ceiling) }),
	upstreamGauge("upstream_connections_max", "Connections that the configuration allows.",
		func(u *UpstreamStatus) float64 { return float64(u.Max) }),
	upstreamGauge("upstream_connections", "Connections that are open.",
		func(u *UpstreamStatus) float64 { return float64(u.Connections) }),
	upstreamGauge("upstream_connections_dialing", "Connections that are being opened.",
		func(u *UpstreamStatus) float64 { return float64(u.Dialing) }),
	upstreamGauge("upstream_connections_busy", "Connections with a transaction.",
		func(u *UpstreamStatus) float64 { return float64(u.Busy) }),
	upstreamGauge("upstream_rate_limit", "Transactions a second that the flow control allows; 0 when it limits none.",
		func(u *UpstreamStatus) float64 { return u.Rate }),
	upstreamGauge("upstream_share", "What part of one connection this process gets, where there is less than one for each; 0 where there is more.",
		func(u *UpstreamStatus) float64 { return u.Share }),
	upstreamGauge("upstream_waiting_seconds", "For how long mail has waited for a connection while others hold them all; 0 when it does not.",
		func(u *UpstreamStatus) float64 { return u.Waiting }),
	upstreamGauge("upstream_pipelining_level", "How much the upstream is given at once, 0 to 4.",
		func(u *UpstreamStatus) float64 { return pipeliningLevel(u.Pipelining) }),
	upstreamGauge("upstream_window", "Messages in flight that one connection to the upstream may have.",
		func(u *UpstreamStatus) float64 { return float64(u.Window) }),
	upstreamCounter("upstream_pipelining_steps_down_total", "Times that the upstream showed that it cannot be given so much at once.",
		func(u *UpstreamStatus) float64 { return float64(u.StepsDown) }),
	upstreamGauge("upstream_session_cap", "Messages after which a connection is replaced, as the upstream showed; 0 when it has not.",
		func(u *UpstreamStatus) float64 { return float64(u.SessionCap) }),
	upstreamGauge("upstream_quota_used", "Recipients that the upstream was given in the last 24 hours.",
		func(u *UpstreamStatus) float64 { return float64(u.QuotaUsed) }),
	upstreamGauge("upstream_quota_limit", "Recipients that the configuration allows in 24 hours; 0 when it sets no limit.",
		func(u *UpstreamStatus) float64 { return float64(u.QuotaLimit) }),
	upstreamGauge("upstream_addresses", "Addresses of the upstream.",
		func(u *UpstreamStatus) float64 { return float64(u.Addresses) }),
	upstreamGauge("upstream_addresses_down", "Addresses of the upstream that do not answer.",
		func(u *UpstreamStatus) float64 { return float64(u.Down) }),
	upstreamGauge("upstream_last_move_timestamp_seconds", "When the flow control last changed what it allows; 0 when it never has.",
		func(u *UpstreamStatus) float64 { return timestamp(u.LastMoveAt) }),
	upstreamGauge("upstream_next_probe_timestamp_seconds", "When it tries whether more is possible, if there is demand; 0 when no probe is to come.",
		func(u *UpstreamStatus) float64 { return timestamp(u.NextProbe) }),
	family("upstream_state", "1 for the state that the flow control is in.", emitState, upstreamLabel, "state"),
	upstreamGauge("upstream_held", "Whether nothing is sent until somebody acts.",
		func(u *UpstreamStatus) float64 { return oneIf(u.Held != "") }),
	upstreamCounters("upstream_outcomes_total", "Transactions and dials by what came of them.", "class",
		func(u *UpstreamStatus) map[string]uint64 { return u.Outcomes }),
	upstreamCounter("upstream_dials_total", "Connections tried.",
		func(u *UpstreamStatus) float64 { return float64(u.Dials) }),
	upstreamCounter("upstream_transactions_total", "Transactions that ended.",
		func(u *UpstreamStatus) float64 { return float64(u.Transactions) }),
	upstreamGauge("upstream_token_expiry_timestamp_seconds", "When the access token for the upstream expires; 0 when there is none.",
		func(u *UpstreamStatus) float64 { return timestamp(u.TokenExpiry) }),
	addressGauge("upstream_address_up", "Whether the last attempt at the address was answered, or there was none yet.",
		func(a *AddressStatus) float64 { return oneIf(a.Up) }),
	addressGauge("upstream_address_connections", "Connections to the address that are open.",
		func(a *AddressStatus) float64 { return float64(a.Connections) }),
}

// emitState writes each state with 0 but for the present one, so that an alert on a state finds a series.
func emitState(m *metric, s *Status, out chan<- prometheus.Metric) {
	for i := range s.Upstreams {
		u := &s.Upstreams[i]
		seen := false
		for _, state := range u.States {
			seen = seen || state == u.State
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, oneIf(state == u.State), u.Name, state)
		}
		if !seen && u.State != "" {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, 1, u.Name, u.State)
		}
	}
}

// pipeliningLevel is the number in "L2"; 0 where there is none.
func pipeliningLevel(name string) float64 {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "L"))
	if err != nil {
		return 0
	}
	return float64(n)
}
