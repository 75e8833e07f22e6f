package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// Bounds of a list of entries.
const (
	entriesUsual = 100  // when the request names no number
	entriesMax   = 1000 // the most that one request gets
	toMax        = 100  // recipients of one entry that are listed; the rest is counted
)

// probeHandler answers the cluster: /healthz, /readyz (200, or 503 with the reason) and /metrics.
func probeHandler(src Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", probe(src.Live))
	mux.HandleFunc("GET /readyz", probe(src.Ready))
	mux.Handle("GET /metrics", metricsHandler(src.Status))
	return mux
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			writeText(w, err.Error()+"\n")
			return
		}
		writeText(w, "ok\n")
	}
}

// writeText drops the error: whoever asked has gone, and there is nobody else to tell.
func writeText(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

// operatorHandler answers GET /v1/status, /v1/queue and /v1/dead, the latter two with ?max=, and POST /v1/resume. That is for the
// socket alone: a login is tried for it, and who makes many locks an account.
func operatorHandler(src Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, src.Status())
	})
	mux.HandleFunc("GET /v1/queue", entries(src.Queue))
	mux.HandleFunc("GET /v1/dead", entries(src.Dead))
	mux.HandleFunc("POST /v1/resume", func(w http.ResponseWriter, r *http.Request) {
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || a.Network() != "unix" {
			answer(w, http.StatusForbidden, failure{"only through a socket, which nobody else can open"})
			return
		}
		answer(w, http.StatusOK, Resumed{src.Resume()})
	})
	return mux
}

func entries(list func(max int) ([]Entry, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := parseMax(r.URL.Query().Get("max"))
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		rows, err := list(n)
		if err != nil {
			answer(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, bounded(rows, n))
	}
}

func parseMax(text string) (int, error) {
	if text == "" {
		return entriesUsual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > entriesMax {
		return 0, fmt.Errorf("max must be a number from 1 to %d", entriesMax)
	}
	return n, nil
}

// bounded returns a copy of rows with no more than n of them, and no more than toMax recipients in each.
func bounded(rows []Entry, n int) []Entry {
	out := make([]Entry, min(len(rows), n)) // not nil: an empty list is [] in JSON
	copy(out, rows)
	for i := range out {
		if e := &out[i]; len(e.To) > toMax {
			e.ToMore += len(e.To) - toMax
			e.To = e.To[:toMax]
		}
	}
	return out
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, code int, body any) {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil { // NaN in a float, say: a programmer's error that must not look like an empty status
		code, text = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	writeText(w, string(text)+"\n")
}

// sameHostOnly refuses requests made for another host's name: a web page may have its name resolved to
// 127.0.0.1 (DNS rebinding), and then read what a browser on this host may read.
func sameHostOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(r.Host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			answer(w, http.StatusForbidden, failure{"the Host of the request is not this host"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// httpErrors carries the lines of net/http into the log, where their text is a field.
func httpErrors(log *zap.Logger, listener string) *stdlog.Logger {
	return stdlog.New(errorLines{log.With(zap.String("listener", listener))}, "", 0)
}

type errorLines struct{ log *zap.Logger }

func (e errorLines) Write(line []byte) (int, error) {
	e.log.Warn("http server", zap.Error(errors.New(strings.TrimSpace(string(line)))))
	return len(line), nil
}
