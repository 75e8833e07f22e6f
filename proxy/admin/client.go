package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// answerMax bounds what a client reads: entriesMax entries, each with toMax addresses of 254 octets and its reasons.
const answerMax = 64 << 20

// ErrUnreachable is wrapped by errors that say that nobody answers: mailweir does not run, or elsewhere.
var ErrUnreachable = errors.New("nobody answers")

// Client asks the operator API of a running mailweir. It may be used concurrently.
type Client struct {
	base string
	http http.Client
}

// NewClient returns a client for what Config.Listen names. It does not connect.
func NewClient(listen string) (*Client, error) {
	if err := CheckListen(listen); err != nil {
		return nil, fmt.Errorf("admin: client: %w", err)
	}
	if listen == Off {
		return nil, errors.New("admin: client: admin.listen is off")
	}
	network, address := "tcp", listen
	base := "http://" + listen
	if path, ok := strings.CutPrefix(listen, unixPrefix); ok {
		network, address, base = "unix", path, "http://localhost"
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return &Client{base, http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, nil
}

// Status asks for GET /v1/status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

// Queue asks for pending deliveries, the oldest first, at most max of them (1 to 1000).
func (c *Client) Queue(ctx context.Context, max int) ([]Entry, error) {
	var rows []Entry
	err := c.get(ctx, "/v1/queue?max="+strconv.Itoa(max), &rows)
	return rows, err
}

// Dead asks for dead messages, the oldest first, at most max of them (1 to 1000).
func (c *Client) Dead(ctx context.Context, max int) ([]Entry, error) {
	var rows []Entry
	err := c.get(ctx, "/v1/dead?max="+strconv.Itoa(max), &rows)
	return rows, err
}

// Resume asks for POST /v1/resume: a held upstream is probed at once, and every pause ends.
func (c *Client) Resume(ctx context.Context) (Resumed, error) {
	var r Resumed
	return r, c.ask(ctx, http.MethodPost, "/v1/resume", &r)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	return c.ask(ctx, http.MethodGet, path, into)
}

func (c *Client) ask(ctx context.Context, method, path string, into any) error {
	code, text, err := fetch(ctx, &c.http, method, c.base+path)
	if err != nil {
		return fmt.Errorf("admin: ask: %w", err)
	}
	if code != http.StatusOK {
		var f failure
		if json.Unmarshal(text, &f) != nil || f.Error == "" {
			f.Error = "HTTP " + strconv.Itoa(code)
		}
		return fmt.Errorf("admin: ask: %s", f.Error)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("admin: read answer: %w", err)
	}
	return nil
}

// Probe asks the probes at listen (Config.ProbeListen) whether mailweir is alive or, with ready, ready. nil: yes;
// otherwise the error is the reason. An unspecified host means this one.
func Probe(ctx context.Context, listen string, ready bool) error {
	if listen == Off {
		return errors.New("admin: probe: probe.listen is off")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin: probe %s: not host:port", listen)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && ip.IsUnspecified() {
		host = "::1"
	} else if host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1" // not localhost: an image from scratch has no /etc/hosts
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy from the environment
	code, text, err := fetch(ctx, &client, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path)
	if err != nil {
		return fmt.Errorf("admin: probe: %w", err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("admin: probe: %s", strings.TrimSpace(string(text)))
	}
	return nil
}

// fetch reads a whole answer. The error is an ErrUnreachable when there was no connection.
func fetch(ctx context.Context, client *http.Client, method, url string) (code int, text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return 0, nil, fmt.Errorf("%w: %w", ErrUnreachable, dialCause(op))
		}
		return 0, nil, err
	}
	text, err = io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, err
	}
	if len(text) > answerMax {
		return 0, nil, fmt.Errorf("the answer is larger than %d bytes", answerMax)
	}
	return resp.StatusCode, text, nil
}

// dialCause is the system's word for it, without the repetitions of address and call around it.
func dialCause(op *net.OpError) error {
	var errno syscall.Errno
	if errors.As(op, &errno) {
		return errno
	}
	return op.Err
}
