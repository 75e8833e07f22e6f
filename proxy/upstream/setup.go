package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// setup is a session on its way from the dial to where MAIL is allowed. One command is under way at a time.
type setup struct {
	client *Client
	began  time.Time
	host   Host
	stage  flowctl.Stage
	raw    net.Conn // the transport
	conn   net.Conn // raw, or TLS over it
	br     *bufio.Reader
	ext    Extensions
	secret string // password or token, when there is a login
	masked bool   // something on the way hides the banner, and with it what else we do not know
}

// fault says why a session did not come up.
type fault struct {
	meaning  Meaning
	text     string // the reply, or the error; never a secret
	rejected bool   // the upstream does not take the credentials
	lapsed   bool   // which it took before
}

func (s *setup) fail(err error) *fault {
	return &fault{meaning: ClassifyErr(s.stage, err), text: truncate(clean(err.Error()), replyTextMax)}
}

func (s *setup) refused(r Reply) *fault {
	if !r.negative() {
		return s.fail(fmt.Errorf("upstream: read reply: %s fits no question", r))
	}
	return &fault{meaning: s.client.cfg.Rules.Classify(s.stage, r), text: r.String()}
}

// cut ends the session from any goroutine. Its error tells nothing: the socket is gone either way.
func (s *setup) cut() { _ = s.raw.Close() }

func (s *setup) dial(ctx context.Context, addr string) *fault {
	ctx, cancel := context.WithTimeout(ctx, s.client.cfg.Timeouts.Connect)
	defer cancel()
	conn, err := s.client.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return s.fail(err)
	}
	s.raw = conn
	if forbidden := s.client.cfg.Forbidden; forbidden != nil && forbidden(conn.RemoteAddr()) {
		return s.fail(fmt.Errorf("upstream: dial %s: that is our own listener: %w", addr, errSettings))
	}
	s.use(conn)
	return nil
}

// use makes conn what is read from and written to, and forgets what was buffered.
func (s *setup) use(conn net.Conn) {
	s.conn = conn
	s.br = bufio.NewReaderSize(conn, replyLineMax)
}

// open goes through the phases in order; s.stage is where it stands or ended.
func (s *setup) open(ctx context.Context) *fault {
	if s.host.Implicit {
		if f := s.handshake(ctx); f != nil {
			return f
		}
	}
	s.stage = flowctl.StageGreeting
	if f := s.greeting(); f != nil {
		return f
	}
	s.stage = flowctl.StageEHLO
	if f := s.hello(); f != nil {
		return f
	}
	if f := s.startTLS(ctx); f != nil {
		return f
	}
	if s.client.cfg.Username != "" {
		s.stage = flowctl.StageAuth
		if f := s.login(ctx); f != nil {
			return f
		}
	}
	if err := s.conn.SetDeadline(time.Time{}); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *setup) greeting() *fault {
	r, _, f := s.read()
	if f != nil {
		return f
	}
	if !r.positive() {
		return s.refused(r)
	}
	s.masked = strings.Contains(r.Text, "***")
	return nil
}

// hello says EHLO and, where that is refused, HELO (RFC 5321 section 3.2).
func (s *setup) hello() *fault {
	r, lines, f := s.command("EHLO " + s.client.cfg.Hostname)
	if f != nil {
		return f
	}
	if r.positive() {
		s.ext = parseExtensions(lines, s.client.cfg.DiscardEHLO)
		return nil
	}
	if r.Code/100 != 5 {
		return s.refused(r)
	}
	if r, _, f = s.command("HELO " + s.client.cfg.Hostname); f != nil {
		return f
	}
	if !r.positive() {
		return s.refused(r)
	}
	return nil
}

// command sends a line, which is at most our own host name or an AUTH response long, and hears its reply.
func (s *setup) command(line string) (Reply, []string, *fault) {
	if err := s.conn.SetDeadline(time.Now().Add(s.client.cfg.Timeouts.Greeting)); err != nil {
		return Reply{}, nil, s.fail(err)
	}
	if _, err := io.WriteString(s.conn, line+"\r\n"); err != nil {
		// The server may have said why before it closed.
		switch r, _, f := s.read(); {
		case f == nil && r.negative():
			return r, nil, nil
		case f != nil && f.meaning.Class == flowctl.Misconfigured: // an alert about our certificate: with TLS 1.3 it comes after the handshake
			return Reply{}, nil, f
		}
		return Reply{}, nil, s.fail(err)
	}
	return s.read()
}

// read hears one reply. Nothing may follow it: the server has nothing to answer.
func (s *setup) read() (Reply, []string, *fault) {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.client.cfg.Timeouts.Greeting)); err != nil {
		return Reply{}, nil, s.fail(err)
	}
	r, lines, err := readReply(s.br)
	if err != nil {
		return Reply{}, nil, s.fail(fmt.Errorf("upstream: read reply: %w", err))
	}
	if s.br.Buffered() > 0 && !r.negative() {
		if s.stage == flowctl.StageTLS {
			return Reply{}, nil, s.fail(errInjected)
		}
		return Reply{}, nil, s.fail(errEarly)
	}
	return r, lines, nil
}

var (
	errEarly = errors.New("upstream: read reply: more than was asked for")
	// errInjected is what a command put in by somebody on the way looks like (RFC 3207, CVE-2011-0411).
	errInjected = fmt.Errorf("upstream: start TLS: octets in clear came before the handshake, as an attacker would send them: %w", errSettings)
)

// startTLS switches to TLS where the settings want it. What was learnt before is forgotten (RFC 3207 section 4.2).
func (s *setup) startTLS(ctx context.Context) *fault {
	mode := s.client.mode
	if s.host.Implicit || mode == tlsNone || mode == tlsOpportunistic && !s.ext.StartTLS {
		return nil
	}
	s.stage = flowctl.StageTLS
	if !s.ext.StartTLS {
		return s.fail(fmt.Errorf("upstream: start TLS: not offered, but required: %w", errSettings))
	}
	r, _, f := s.command("STARTTLS")
	if f != nil {
		return f
	}
	if !r.positive() {
		return s.refused(r)
	}
	s.ext = Extensions{}
	if f := s.handshake(ctx); f != nil {
		return f
	}
	s.stage = flowctl.StageEHLO
	return s.hello()
}
