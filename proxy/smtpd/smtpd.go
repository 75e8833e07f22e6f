// Package smtpd is the front door: it takes messages from applications over SMTP and answers 250
// only after the Store has said that the message is safe.
//
// The protocol's states are go-smtp's; the bytes are ours. A guard stands between the network and
// go-smtp, hands it one checked command line at a time, and reads the content of a message
// itself: the end of the data is CRLF.CRLF on the raw bytes and nothing else, and only then are
// line ends normalised. A connection that fails within content is closed; what was left of the
// content is never read as commands.
package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-smtp"
	"github.com/mailweir/mailweir/proxy/message"
	"go.uber.org/zap"
)

// Store is where messages go; package proxy supplies it.
type Store struct {
	// Begin is called at MAIL, before its reply, possibly by many connections at once. It fills
	// env.ID and env.Received. size is SIZE= in octets, 0 when the client gave none. An error
	// refuses the message: ErrFull and ErrClosing (also wrapped) have their own replies, any other
	// is answered 451 and logged here.
	Begin func(env *message.Envelope, size int64) (Draft, error)
}

// Draft receives one message: our Received header first, then the content in normalised form, with CRLF
// line ends and without NUL. Only one goroutine uses it. Write must not keep its argument. After Begin
// exactly one of Commit and Abort is called, once, also after a failed Write.
type Draft interface {
	io.Writer

	// Commit makes the message durable; nil means it is, and only then the client hears 250.
	// env is complete, with To and Size. After an error the draft must be gone.
	Commit(env *message.Envelope) error

	// Abort forgets the message.
	Abort()
}

// Errors with a meaning that Begin, Write and Commit may return, also wrapped.
var (
	ErrFull    = errors.New("journal is full")       // 452 4.3.1, the connection stays
	ErrClosing = errors.New("service shutting down") // 421 4.3.2, the connection closes
)

// Server accepts connections on any number of listeners, which share its limits. It is safe for concurrent
// use and has no use as a zero value.
type Server struct {
	cfg   Config
	store Store
	log   *zap.Logger
	smtp  *smtp.Server
	stats stats

	envelopes atomic.Int64  // octets of the recipients of open transactions
	slots     chan struct{} // holds one element for each connection served
	drained   chan struct{} // closed by Drain
	serving   sync.WaitGroup
	open      sync.WaitGroup // one for each guard not yet closed

	mu       sync.Mutex // not held over I/O
	draining bool
	doors    map[*door]struct{}
	guards   map[*guard]struct{}
}

// New returns a Server for a configuration that Validate accepts. It does not listen yet. log is already named for
// this package.
func New(cfg Config, store Store, log *zap.Logger) *Server {
	s := &Server{
		cfg:     cfg,
		store:   store,
		log:     log,
		slots:   make(chan struct{}, cfg.MaxConnections),
		drained: make(chan struct{}),
		doors:   map[*door]struct{}{},
		guards:  map[*guard]struct{}{},
	}
	s.smtp = smtp.NewServer(smtp.BackendFunc(newSession))
	s.smtp.Domain = cfg.Hostname
	s.smtp.MaxMessageBytes = cfg.MaxMessageBytes // only offered; content counts for itself
	s.smtp.MaxLineLength = 0                     // the guard's maxCommandLine holds
	s.smtp.AllowInsecureAuth = cfg.AcceptAnyAuth
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.EnableDSN = true
	s.smtp.ErrorLog = errorLog{s.log}
	return s
}

// Serve accepts connections on l until Drain or Close, which close l and make Serve return nil; called after
// them it closes l at once. Any other end is an error, and l is closed too. Several listeners may be
// served at once, each by its own call.
func (s *Server) Serve(l net.Listener) error {
	d := &door{Listener: l, server: s}
	if !s.enter(d) {
		return d.Close()
	}
	defer s.leave(d)
	err := s.smtp.Serve(d)
	if s.isDraining() {
		return nil
	}
	return fmt.Errorf("smtpd: serve %v: %w", l.Addr(), err)
}

func (s *Server) enter(d *door) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.doors[d] = struct{}{}
	s.serving.Add(1)
	return true
}

func (s *Server) leave(d *door) {
	d.shut()
	s.mu.Lock()
	delete(s.doors, d)
	s.mu.Unlock()
	s.serving.Done()
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Drain closes the listeners and sends away every client that has no transaction open with 421 4.3.2, at
// once; the others are sent away when their transaction has ended. No transaction begins any more. Drain
// does not wait, and may be called again.
func (s *Server) Drain() {
	s.mu.Lock()
	first := !s.draining
	s.draining = true
	doors, guards := keys(s.doors), keys(s.guards)
	s.mu.Unlock()
	if first {
		close(s.drained)
	}
	for _, d := range doors {
		d.shut()
	}
	for _, g := range guards {
		g.drain()
	}
}

// Close drains, waits until every transaction has ended or ctx is done, cuts the connections that
// remain, and joins every goroutine of the server. A Commit under way is waited for, however long it takes.
// The error says how many connections were cut and wraps that of ctx.
func (s *Server) Close(ctx context.Context) error {
	s.Drain()
	closed := make(chan struct{})
	go func() { // ends with the last guard, received from below
		s.open.Wait()
		close(closed)
	}()
	var err error
	select {
	case <-closed:
	case <-ctx.Done():
		if n := s.cut(); n > 0 {
			err = fmt.Errorf("smtpd: close: cut %d connections: %w", n, ctx.Err())
		}
		<-closed
	}
	s.serving.Wait()
	// go-smtp's own goroutines are about to end: all their connections are closed.
	if e := s.smtp.Shutdown(context.Background()); e != nil && !errors.Is(e, smtp.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("smtpd: close: %w", e))
	}
	return err
}

// cut closes every connection under its guard and returns how many there were.
func (s *Server) cut() int {
	s.mu.Lock()
	guards := keys(s.guards)
	s.mu.Unlock()
	for _, g := range guards {
		g.cut()
	}
	return len(guards)
}

func keys[K comparable](m map[K]struct{}) []K {
	list := make([]K, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}
