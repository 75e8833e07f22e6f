package smtpd

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// AcceptBounds are the upper bounds, in seconds, of the buckets of Stats.AcceptSeconds.
var AcceptBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Stats is what the front door has seen since it was made.
type Stats struct {
	Connections   int               // now served
	Total         uint64            // connections served, the present ones included
	Refused       map[string]uint64 // replies 4yz and 5yz by code and enhanced code, "452 4.3.1"; "other" beyond 64 kinds
	BareNewlines  uint64            // bare LF seen in content
	BareReturns   uint64            // stray CR seen in content
	AcceptSeconds []uint64          // accepted messages by the time from the end of the content to the 250; one for each of AcceptBounds, and one beyond
	AcceptSum     float64           // seconds
}

// Stats returns a snapshot that the caller owns.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	connections := len(s.guards)
	s.mu.Unlock()
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	got := s.stats.seen
	got.Connections = connections
	got.Refused = maps.Clone(got.Refused)
	got.AcceptSeconds = slices.Clone(got.AcceptSeconds)
	if got.Refused == nil {
		got.Refused = map[string]uint64{}
	}
	if got.AcceptSeconds == nil {
		got.AcceptSeconds = make([]uint64, len(AcceptBounds)+1)
	}
	return got
}

// stats counts. The zero value is ready.
type stats struct {
	mu   sync.Mutex
	seen Stats
}

const (
	maxRefusalKinds = 64
	otherRefusals   = "other"
)

func (s *stats) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Total++
}

// refused counts a reply line with an enhanced code.
func (s *stats) refused(line []byte) {
	code, rest, _ := bytes.Cut(line, []byte(" "))
	enhanced, _, _ := bytes.Cut(rest, []byte(" "))
	key := string(code) + " " + string(enhanced)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.Refused == nil {
		s.seen.Refused = map[string]uint64{}
	}
	if _, known := s.seen.Refused[key]; !known && len(s.seen.Refused) >= maxRefusalKinds {
		key = otherRefusals
	}
	s.seen.Refused[key]++
}

func (s *stats) repaired(bareLF, bareCR uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.BareNewlines += bareLF
	s.seen.BareReturns += bareCR
}

func (s *stats) accepted(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.AcceptSeconds == nil {
		s.seen.AcceptSeconds = make([]uint64, len(AcceptBounds)+1)
	}
	bucket, _ := slices.BinarySearch(AcceptBounds, took.Seconds())
	s.seen.AcceptSeconds[bucket]++
	s.seen.AcceptSum += took.Seconds()
}

// errorLog takes what go-smtp reports: trouble in accept, and panics.
type errorLog struct{ log *zap.Logger }

func (l errorLog) Printf(format string, args ...any) {
	report := l.log.Warn
	if strings.HasPrefix(format, "panic") {
		report = l.log.Error
	}
	report("go-smtp reported", zap.String("report", fmt.Sprintf(format, args...)))
}

func (l errorLog) Println(args ...any) {
	l.log.Warn("go-smtp reported", zap.String("report", fmt.Sprintln(args...)))
}
