package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// An upstream is a list of hosts, and a host has the addresses that its name resolves to. Credentials, settings of TLS and what is
// learnt are the upstream's; certificates are verified for the host.

// Host is one item of Config.URL.
type Host struct {
	Name     string // or a literal address, without brackets
	Port     string
	Implicit bool // TLS comes first
	Priority int  // those with the lowest are used; others while none of these answers
	Weight   int  // its addresses' part of the connections among those of its priority
}

const (
	hostsMax         = 16   // of one upstream
	hostAddressesMax = 16   // of one host; a name with more is used with the first of them
	priorityMax      = 1000 // likewise weightMax
	weightMax        = 1000
	resolveTimeout   = 10 * time.Second
)

// Address returns host:port, which stands for every address of the host.
func (h Host) Address() string { return net.JoinHostPort(h.Name, h.Port) }

// at names one address of the host, as mail servers write it: relay.example[192.0.2.1]:25.
func (h Host) at(ip string) string { return h.Name + "[" + ip + "]:" + h.Port }

func (h Host) isLiteral() bool {
	_, err := netip.ParseAddr(h.Name)
	return err == nil
}

// Hosts returns what URL lists, with port 25 for smtp and 465 for smtps (RFC 8314) where an item names none. The error joins a
// fault of each item; none repeats an item, since people put passwords into URLs.
func (c Config) Hosts() ([]Host, error) {
	hosts, faults := c.parseURL()
	return hosts, errors.Join(faults...)
}

func (c Config) parseURL() (hosts []Host, faults []error) {
	items := strings.Split(c.URL, ",")
	switch {
	case c.URL == "":
		return nil, []error{errors.New("upstream: url: is missing")}
	case len(items) > hostsMax:
		return nil, []error{fmt.Errorf("upstream: url: lists more than %d hosts", hostsMax)}
	}
	for i, item := range items {
		h, problem := parseHost(strings.TrimSpace(item))
		if problem == "" && slices.ContainsFunc(hosts, func(o Host) bool { return strings.EqualFold(o.Address(), h.Address()) }) {
			problem = "names the same host and port as one before it"
		}
		switch {
		case problem == "":
			hosts = append(hosts, h)
		case len(items) == 1:
			faults = append(faults, errors.New("upstream: url: "+problem))
		default:
			faults = append(faults, fmt.Errorf("upstream: url: host %d of the list %s", i+1, problem))
		}
	}
	return hosts, faults
}

// parseHost returns what is wrong with an item, "" when nothing is.
func parseHost(text string) (h Host, problem string) {
	if text == "" {
		return h, "is empty"
	}
	u, err := url.Parse(text)
	if err != nil {
		return h, "is no URL; write smtp://host:port or smtps://host:port"
	}
	h = Host{Name: u.Hostname(), Port: "25", Weight: 1}
	switch u.Scheme {
	case "smtp":
	case "smtps":
		h.Port, h.Implicit = "465", true
	default:
		return h, "begins neither with smtp:// nor with smtps://"
	}
	switch {
	case u.User != nil:
		return h, "holds credentials; use username and password or password_file"
	case h.Name == "":
		return h, "names no host"
	case strings.ContainsAny(h.Name, "[]"):
		return h, "names a host that is none"
	case u.Path != "" && u.Path != "/" || u.Fragment != "":
		return h, "has more than host and port; priority and weight are written as ?priority=10&weight=2"
	}
	if u.Port() != "" {
		h.Port = u.Port()
	}
	if n, err := strconv.Atoi(h.Port); err != nil || n < 1 || n > 65535 {
		return h, "has a port that is no port"
	}
	return h, h.parseOptions(u.RawQuery)
}

func (h *Host) parseOptions(query string) (problem string) {
	options, err := url.ParseQuery(query)
	if err != nil {
		return "has a query that is none; write ?priority=10&weight=2"
	}
	for _, key := range slices.Sorted(keysOf(options)) {
		var at *int
		least, most := 0, priorityMax
		switch key {
		case "priority":
			at = &h.Priority
		case "weight":
			at, least, most = &h.Weight, 1, weightMax
		default:
			return "has an option that is neither priority nor weight"
		}
		n, err := strconv.Atoi(options.Get(key))
		if err != nil || n < least || n > most || len(options[key]) > 1 {
			return fmt.Sprintf("wants one %s from %d to %d", key, least, most)
		}
		*at = n
	}
	return ""
}

func keysOf(v url.Values) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range v {
			if !yield(k) {
				return
			}
		}
	}
}

// find returns the host that an address of Resolve or Addresses belongs to, and what is to be dialled for it.
func (c *Client) find(addr string) (h Host, dial string) {
	name, rest, bracketed := strings.Cut(addr, "[")
	for _, h := range c.hosts {
		ip, port, closed := strings.Cut(rest, "]:")
		switch {
		case h.Address() == addr:
			return h, addr
		case bracketed && closed && h.Name == name && h.Port == port:
			return h, net.JoinHostPort(ip, port)
		}
	}
	return c.hosts[0], addr
}

// Addresses returns the hosts as they are dialled as long as nothing is known of their names: by name.
func (c *Client) Addresses() (addrs []flowctl.Address) {
	for _, h := range c.hosts {
		addrs = append(addrs, flowctl.Address{Name: h.Address(), Priority: h.Priority, Weight: h.Weight})
	}
	return addrs
}

// Resolves reports whether Resolve has anything to ask for.
func (c *Client) Resolves() bool {
	return c.cfg.Resolve != nil && slices.ContainsFunc(c.hosts, func(h Host) bool { return !h.isLiteral() })
}

// Resolve asks for the addresses of all hosts, for at most ten seconds. A host whose name cannot be resolved keeps those of known,
// which begins with Addresses; the error says which those are and why. The addresses of one name are sorted, so that the same ones are the same list.
func (c *Client) Resolve(ctx context.Context, known []flowctl.Address) ([]flowctl.Address, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found := make([][]flowctl.Address, len(c.hosts))
	errs := make([]error, len(c.hosts))
	var asking sync.WaitGroup
	for i, h := range c.hosts {
		asking.Go(func() {
			ips, err := c.lookup(ctx, h)
			for _, ip := range ips {
				found[i] = append(found[i], flowctl.Address{Name: ip, Priority: h.Priority, Weight: h.Weight})
			}
			if err != nil {
				errs[i] = fmt.Errorf("upstream: resolve %s: %w", h.Name, err)
			}
		})
	}
	asking.Wait()
	var all []flowctl.Address
	for i, h := range c.hosts {
		if errs[i] != nil {
			found[i] = slices.DeleteFunc(slices.Clone(known), func(a flowctl.Address) bool { of, _ := c.find(a.Name); return of != h })
		}
		all = append(all, found[i]...)
	}
	return all, errors.Join(errs...)
}

// lookup returns the names of a host's addresses.
func (c *Client) lookup(ctx context.Context, h Host) ([]string, error) {
	if c.cfg.Resolve == nil || h.isLiteral() {
		return []string{h.Address()}, nil
	}
	ips, err := c.cfg.Resolve(ctx, h.Name)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("it has no address")
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) })
	var names []string
	for _, ip := range slices.Compact(ips) {
		if len(names) < hostAddressesMax {
			names = append(names, h.at(ip.String()))
		}
	}
	return names, nil
}

// lookupUsable is the system's resolver. Addresses of a kind to which this host has no route, as IPv6 where there is none, are left
// out unless there are no others (RFC 6724 section 6, rule 1).
func lookupUsable(ctx context.Context, name string) ([]netip.Addr, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	usable := slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return !hasRoute(ip) })
	if len(usable) == 0 {
		return ips, nil
	}
	return usable, nil
}

// hasRoute asks the kernel. To connect a socket for datagrams sends nothing.
func hasRoute(ip netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}
