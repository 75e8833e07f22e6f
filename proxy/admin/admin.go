// Package admin shows what mailweir does: probes and metrics to the cluster, and an operator API to whoever may
// open its socket. It only reads, but for Resume.
//
// It imports none of the components it shows: package proxy fills in Source. No answer holds a
// secret or the content of a message, and /metrics names no recipient domain.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// Bounds of both listeners. An answer waits at most for Source, which takes no longer than a second.
const (
	readTimeout  = 500 * time.Millisecond // a request is a line or two; whoever is silent gives way to the kubelet
	writeTimeout = 10 * time.Second
	headerMax    = 16 << 10 // bytes of a request's header
	clientsMax   = 128      // connections of one listener; the next one waits in the backlog
)

// Source is what the listeners show; package proxy supplies it. Every function is safe for
// concurrent use and returns within a second.
type Source struct {
	Ready  func() error                   // nil: ready
	Live   func() error                   // nil: alive
	Status func() Status                  // the last published snapshot
	Queue  func(max int) ([]Entry, error) // pending deliveries, the oldest first
	Dead   func(max int) ([]Entry, error) // dead messages, the oldest first
	Resume func() (was string)            // probes a held upstream at once and ends every pause; was: why it was held, "": it was not
}

// Server owns the listeners. New makes it listen, Serve answers, Close ends it.
type Server struct {
	log       *zap.Logger
	endpoints []*endpoint
	probe     net.Addr // nil: off
	admin     net.Addr // nil: off
}

// endpoint is one listener with what it answers.
type endpoint struct {
	name     string
	listener net.Listener
	http     *http.Server
}

// New listens at once, so that an address in use is found at start. The caller must call Close, whether or not
// it called Serve. log is already named. Errors: a Config that Validate refuses, or an address that cannot be had.
func New(cfg Config, src Source, log *zap.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{log: log}
	if cfg.ProbeListen != Off {
		l, err := net.Listen("tcp", cfg.ProbeListen)
		if err != nil {
			return nil, fmt.Errorf("admin: listen for probes: %w", err)
		}
		s.probe = l.Addr()
		s.add("probes", l, probeHandler(src))
	}
	if cfg.Listen != Off {
		l, err := listenOperator(cfg.Listen)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("admin: listen on %s: %w", cfg.Listen, err), s.closeListeners())
		}
		s.admin = l.Addr()
		handler := operatorHandler(src)
		if l.Addr().Network() == "tcp" {
			handler = sameHostOnly(handler)
		}
		s.add("operator", l, handler)
	}
	return s, nil
}

func (s *Server) add(name string, l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:        http.MaxBytesHandler(h, 0), // nothing here takes a body
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: headerMax,
		ErrorLog:       httpErrors(s.log, name),
	}
	// Every client asks rarely. Idle connections would only take the places of clientsMax, and whoever held all of
	// them would keep the kubelet from its probe and have the pod killed.
	srv.SetKeepAlivesEnabled(false)
	s.endpoints = append(s.endpoints, &endpoint{name, netutil.LimitListener(l, clientsMax), srv})
}

// ProbeAddr returns where the probes are, nil when they are off.
func (s *Server) ProbeAddr() net.Addr { return s.probe }

// AdminAddr returns where the operator API is, nil when it is off.
func (s *Server) AdminAddr() net.Addr { return s.admin }

// Serve answers until Close, and returns nil then. When one listener fails both are given up, and the error
// says which it was. It is called once.
func (s *Server) Serve() error {
	errs := make([]error, len(s.endpoints))
	var wg sync.WaitGroup
	for i, e := range s.endpoints {
		wg.Go(func() {
			if err := e.http.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = errors.Join(fmt.Errorf("admin: serve %s: %w", e.name, err), s.cut())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close stops listening and waits for answers under way until ctx is done, then cuts them. It may
// be called before, during and after Serve, and more than once.
func (s *Server) Close(ctx context.Context) error {
	var errs []error
	for _, e := range s.endpoints {
		err := e.http.Shutdown(ctx)
		if err != nil && errors.Is(err, ctx.Err()) {
			err = e.http.Close()
		}
		errs = append(errs, ignoreClosed(err))
	}
	return wrap("admin: close: %w", errors.Join(append(errs, s.closeListeners())...))
}

func (s *Server) cut() error {
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, ignoreClosed(e.http.Close()))
	}
	return errors.Join(errs...)
}

// closeListeners is for those that no http.Server has come to know, which happens before Serve.
func (s *Server) closeListeners() error {
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, ignoreClosed(e.listener.Close()))
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func wrap(format string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format, err)
}
