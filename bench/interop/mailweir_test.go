//go:build postfix

package interop

import (
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/proxy/admin"
)

type mailweir struct{ *rig.Weir }

// newMailweir starts a process in front of upstream. settings are NAME=value and win over those that make it fit for a test.
func newMailweir(t *testing.T, upstream string, settings ...string) mailweir {
	t.Helper()
	m := mailweir{rig.NewWeir(t, binary, scratch(t), upstream,
		"MAILWEIR_LOG_ADDRESSES=plain",
		// What takes minutes in service takes seconds here.
		"MAILWEIR_TIME_SCALE=0.1",
		"MAILWEIR_RETRY_MIN=200ms",
		"MAILWEIR_RETRY_MAX=2s",
		"MAILWEIR_RECIPIENT_RETRY_MIN=500ms",
		"MAILWEIR_RECIPIENT_RETRY_MAX=2s")}
	m.Set(settings...)
	m.Start(t)
	return m
}

// awaitEmpty waits until nothing is pending, and holds the books to their sum.
func (m mailweir) awaitEmpty(t *testing.T) admin.Status {
	t.Helper()
	s := m.AwaitStatus(t, arrivalLimit, "an empty queue", func(s admin.Status) bool { return s.Queue.Pending == 0 })
	if q := s.Queue; q.Accepted+q.Recovered != q.Delivered || q.Dead != 0 || q.DeadRetained != 0 {
		t.Errorf("not everything was delivered: %+v", q)
	}
	return s
}
