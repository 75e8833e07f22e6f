package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// handshake begins TLS. It has as long as the dial: no server thinks for minutes here, and a stalled one must not keep the next try.
func (s *setup) handshake(ctx context.Context) *fault {
	ctx, cancel := context.WithTimeout(ctx, s.client.cfg.Timeouts.Connect)
	defer cancel()
	if err := s.conn.SetDeadline(time.Now().Add(s.client.cfg.Timeouts.Connect)); err != nil {
		return s.fail(err)
	}
	rec := &recorder{Conn: s.conn}
	cfg, err := s.client.tls.config()
	if err != nil {
		return s.fail(err)
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = s.host.Name
	}
	conn := tls.Client(rec, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) {
			return s.plainText(rec.seen, err)
		}
		s.stage = flowctl.StageTLS // also where it came first
		return s.fail(fmt.Errorf("upstream: TLS handshake: %w", err))
	}
	rec.done = true
	s.use(conn)
	return nil
}

// plainLimit is how long the rest of a reply in plain text is waited for.
const plainLimit = 2 * time.Second

// plainText judges what came in place of TLS: servers refuse a connection on the TLS port in plain text.
func (s *setup) plainText(seen []byte, tlsErr error) *fault {
	if err := s.conn.SetReadDeadline(time.Now().Add(plainLimit)); err != nil {
		return s.fail(err)
	}
	all := io.LimitReader(io.MultiReader(bytes.NewReader(seen), s.conn), recordMax)
	r, _, err := readReply(bufio.NewReaderSize(all, replyLineMax))
	if err != nil {
		s.stage = flowctl.StageTLS
		return s.fail(fmt.Errorf("upstream: TLS handshake: %w", tlsErr))
	}
	if r.positive() {
		return s.fail(fmt.Errorf("upstream: TLS handshake: the server speaks plain SMTP, %s: %w", r, errSettings))
	}
	return s.refused(r)
}

// recordMax is how much of the transport's input is kept during a handshake.
const recordMax = 1024

// recorder keeps the first octets read during a handshake.
type recorder struct {
	net.Conn
	seen []byte
	done bool
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if !r.done && len(r.seen) < recordMax {
		r.seen = append(r.seen, p[:min(n, recordMax-len(r.seen))]...)
	}
	return n, err
}
