package admin

import (
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of a scrape.
const (
	scrapesMax    = 4 // at one time; the next one hears 503
	scrapeTimeout = 5 * time.Second
)

// metricsHandler answers in the Prometheus text format. Each scrape takes one snapshot.
func metricsHandler(status func() Status) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		&collector{status: status},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesMax,
		Timeout:             scrapeTimeout,
	})
}

// metric is one family: its name without the prefix, its help, and how its samples come from a Status.
type metric struct {
	desc *prometheus.Desc
	emit func(m *metric, s *Status, out chan<- prometheus.Metric)
}

func family(name, help string, emit func(*metric, *Status, chan<- prometheus.Metric), labels ...string) metric {
	return metric{prometheus.NewDesc("mailweir_"+name, help, labels, nil), emit}
}

func counter(name, help string, value func(*Status) float64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, value(s))
	})
}

func gauge(name, help string, value func(*Status) float64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, value(s))
	})
}

// counters is one counter for each key of a map that has few.
func counters(name, help, label string, values func(*Status) map[string]uint64) metric {
	return family(name, help, func(m *metric, s *Status, out chan<- prometheus.Metric) {
		for key, n := range values(s) {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(n), key)
		}
	}, label)
}

var metrics = []metric{
	family("build_info", "Always 1; says what is running.", func(m *metric, s *Status, out chan<- prometheus.Metric) {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, 1, s.Version, runtime.Version())
	}, "version", "go_version"),
	gauge("ready", "Whether the readiness probe succeeds.", func(s *Status) float64 { return oneIf(s.Ready == ReadyYes) }),
	gauge("restart_needed", "Whether a file that only a start reads has changed since.",
		func(s *Status) float64 { return oneIf(s.Restart.Files != "") }),
	gauge("restart_refused", "Whether a start would refuse the configuration as it has become.",
		func(s *Status) float64 { return oneIf(s.Restart.Refused != "") }),
	gauge("draining", "Whether mailweir is about to stop.", func(s *Status) float64 { return oneIf(s.Draining) }),

	counter("messages_accepted_total", "Messages that heard 250 since start, and those found in the journal at start.",
		func(s *Status) float64 { return float64(s.Queue.Accepted) }),
	counter("messages_recovered_total", "Messages found in the journal at start; part of those accepted.",
		func(s *Status) float64 { return float64(s.Queue.Recovered) }),
	counter("messages_delivered_total", "Messages of which every recipient was delivered.",
		func(s *Status) float64 { return float64(s.Queue.Delivered) }),
	counter("messages_dead_total", "Messages that ended with a recipient refused or expired.",
		func(s *Status) float64 { return float64(s.Queue.Dead) }),
	gauge("messages_pending", "Messages accepted and not ended.",
		func(s *Status) float64 { return float64(s.Queue.Pending) }),
	gauge("messages_dead_retained", "Dead messages that can still be read.",
		func(s *Status) float64 { return float64(s.Queue.DeadRetained) }),
	gauge("deliveries_pending", "Deliveries not ended; a message begins as one for each hundred recipients.",
		func(s *Status) float64 { return float64(s.Queue.Deliveries) }),
	gauge("deliveries_in_flight", "Deliveries handed to a connection.",
		func(s *Status) float64 { return float64(s.Queue.InFlight) }),
	gauge("deliveries_deferred", "Deliveries waiting for the time of their next attempt.",
		func(s *Status) float64 { return float64(s.Queue.Deferred) }),
	counter("recipients_delivered_total", "Recipients that the upstream took.",
		func(s *Status) float64 { return float64(s.Queue.RecipientsDelivered) }),
	counter("recipients_failed_total", "Recipients that the upstream refused for good, or that expired.",
		func(s *Status) float64 { return float64(s.Queue.RecipientsFailed) }),
	gauge("oldest_pending_age_seconds", "Age of the oldest pending message; 0 when there is none.", oldestAge),
	gauge("last_delivered_timestamp_seconds", "When the upstream last took a message; 0 when it has not since start.",
		func(s *Status) float64 { return timestamp(s.Queue.LastDelivered) }),
	counter("duplicates_possible_total", "Transactions sent again although the upstream may have taken them.",
		func(s *Status) float64 { return float64(s.Queue.DuplicatesPossible) }),

	gauge("journal_bytes", "Size of the journal.", func(s *Status) float64 { return float64(s.Journal.Bytes) }),
	gauge("journal_max_bytes", "Size at which new mail is put off.",
		func(s *Status) float64 { return float64(s.Journal.MaxBytes) }),
	gauge("journal_segments", "Segment files of the journal.", func(s *Status) float64 { return float64(s.Journal.Segments) }),
	gauge("journal_broken", "Whether the journal cannot be written.",
		func(s *Status) float64 { return oneIf(s.Journal.Error != "") }),
	counter("journal_syncs_total", "Syncs of the journal.", func(s *Status) float64 { return float64(s.Journal.Syncs) }),
	counter("journal_sync_seconds_total", "Time spent in syncs of the journal.",
		func(s *Status) float64 { return s.Journal.SyncSeconds }),
	counter("journal_sync_failures_total", "Syncs of the journal that failed.",
		func(s *Status) float64 { return float64(s.Journal.SyncFailures) }),
	counter("journal_swept_segments_total", "Segments emptied by copying what was left in them.",
		func(s *Status) float64 { return float64(s.Journal.Swept) }),
	counter("journal_moved_records_total", "Messages and ends of messages copied for that.",
		func(s *Status) float64 { return float64(s.Journal.Moved) }),
	gauge("journal_quarantined_files", "Damaged files kept for a human.",
		func(s *Status) float64 { return float64(s.Journal.Quarantined) }),
	counter("journal_damaged_records_total", "Records that were found damaged and put aside.",
		func(s *Status) float64 { return float64(s.Journal.Damaged) }),

	gauge("dkim_keys_unusable", "Signing keys that cannot be used, so that mail which needs one waits.",
		func(s *Status) float64 { return float64(len(s.Signing.Unusable)) }),
	counter("dkim_signed_total", "Transactions made ready with a DKIM signature.",
		func(s *Status) float64 { return float64(s.Signing.Signed) }),
	counters("dkim_unsigned_total", "Transactions made ready without a DKIM signature although there are keys, by what the message lacks.", "reason",
		func(s *Status) map[string]uint64 { return s.Signing.Unsigned }),

	gauge("smtpd_connections", "Connections of the application.",
		func(s *Status) float64 { return float64(s.Front.Connections) }),
	counter("smtpd_connections_total", "Connections that the application has made.",
		func(s *Status) float64 { return float64(s.Front.Total) }),
	counters("smtpd_refused_total", "Replies to the application other than 2yz and 3yz.", "reply",
		func(s *Status) map[string]uint64 { return s.Front.Refused }),
	family("smtpd_accept_seconds", "Time from the end of a message to its 250.", emitAccept),
	counter("smtpd_bare_newlines_total", "Line feeds without carriage return that were made whole.",
		func(s *Status) float64 { return float64(s.Front.BareNewlines) }),
	counter("smtpd_bare_returns_total", "Carriage returns without line feed that were replaced.",
		func(s *Status) float64 { return float64(s.Front.BareReturns) }),
}

// emitAccept makes the cumulative buckets of Prometheus out of plain counts.
func emitAccept(m *metric, s *Status, out chan<- prometheus.Metric) {
	buckets := make(map[float64]uint64, len(s.Front.AcceptBounds))
	var total uint64
	for i, n := range s.Front.AcceptSeconds {
		total += n
		if i < len(s.Front.AcceptBounds) {
			buckets[s.Front.AcceptBounds[i]] = total
		}
	}
	out <- prometheus.MustNewConstHistogram(m.desc, total, s.Front.AcceptSum, buckets)
}

func oldestAge(s *Status) float64 {
	if s.Queue.OldestPending.IsZero() {
		return 0
	}
	return max(0, time.Since(s.Queue.OldestPending).Seconds())
}

func timestamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var families = slices.Concat(metrics, upstreamMetrics)

// collector turns the status into metrics when it is asked, so that no component knows the name of one.
type collector struct{ status func() Status }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range families {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.status()
	for i := range families {
		families[i].emit(&families[i], &s, out)
	}
}
