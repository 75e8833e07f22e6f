package admin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Off in place of an address means no listener.
const Off = "off"

const unixPrefix = "unix:"

// socketPathMax leaves room in the 108 bytes of sockaddr_un (unix(7)) for the name under which the socket
// is made; see listenUnix.
const socketPathMax = 90

// Config says where the probes and the operator API listen. The zero value is not valid.
type Config struct {
	ProbeListen string // host:port of /healthz, /readyz, /metrics; "off": none
	Listen      string // unix:/path (mode 0600), or loopback host:port; "off": none. The default, admin.sock in the journal's directory, is put here by package config
}

// Validate reports everything that is wrong with c, joined.
func (c Config) Validate() error {
	return errors.Join(
		wrap("admin: probe.listen: %w", CheckProbeListen(c.ProbeListen)),
		wrap("admin: listen: %w", CheckListen(c.Listen)),
	)
}

// CheckProbeListen accepts host:port, with an IP address or nothing as the host, and Off.
func CheckProbeListen(addr string) error {
	if addr == Off {
		return nil
	}
	host, err := splitAddr(addr)
	if err != nil || host == "" || host == "localhost" {
		return err
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%s: the host must be an IP address, localhost or nothing", addr)
	}
	return nil
}

// CheckListen accepts an absolute unix:/path, host:port on loopback, and Off: there is no password, so only who is
// on this host may ask.
func CheckListen(addr string) error {
	if addr == Off {
		return nil
	}
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		switch {
		case !filepath.IsAbs(path):
			return fmt.Errorf("%s: the path of a socket must be absolute", addr)
		case len(path) > socketPathMax:
			return fmt.Errorf("%s: the path of a socket must not be longer than %d bytes", addr, socketPathMax)
		}
		return nil
	}
	host, err := splitAddr(addr)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s: only a unix socket or a loopback address is allowed", addr)
	}
	return nil
}

func splitAddr(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s: not host:port", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%s: not a port", addr)
	}
	return host, nil
}
