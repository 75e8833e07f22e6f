package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// zone answers for names in place of a resolver; a name without addresses fails.
type zone map[string][]string

func (z zone) resolve(_ context.Context, name string) (ips []netip.Addr, err error) {
	if z[name] == nil {
		return nil, errors.New("no such host")
	}
	for _, ip := range z[name] {
		ips = append(ips, netip.MustParseAddr(ip))
	}
	return ips, nil
}

func hostsClient(t *testing.T, url string, z zone) *Client {
	t.Helper()
	c, err := New(Config{URL: url, Resolve: z.resolve})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAHostHasTheAddressesOfItsName(t *testing.T) {
	z := zone{"a.example": {"192.0.2.2", "192.0.2.1", "::ffff:192.0.2.1"}, "b.example": {"2001:db8::1"}}
	c := hostsClient(t, "smtp://a.example:587?weight=3,smtps://b.example?priority=10,smtp://192.0.2.9", z)
	got, err := c.Resolve(t.Context(), nil)
	want := []flowctl.Address{
		{Name: "a.example[192.0.2.1]:587", Weight: 3}, {Name: "a.example[192.0.2.2]:587", Weight: 3},
		{Name: "b.example[2001:db8::1]:465", Priority: 10, Weight: 1}, {Name: "192.0.2.9:25", Weight: 1},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for i, dial := range []string{"192.0.2.1:587", "192.0.2.2:587", "[2001:db8::1]:465", "192.0.2.9:25"} {
		h, to := c.find(got[i].Name)
		if to != dial || h.Implicit != (i == 2) {
			t.Errorf("%s is dialled as %s, %+v", got[i].Name, to, h)
		}
	}
}

func TestANameThatCannotBeResolvedKeepsItsAddresses(t *testing.T) {
	z := zone{"a.example": {"192.0.2.1"}, "b.example": {"192.0.2.2"}}
	c := hostsClient(t, "smtp://a.example,smtp://b.example", z)
	known, err := c.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	z["b.example"] = []string{"192.0.2.3"}
	before := slices.Clone(known)
	for name, none := range map[string][]string{"no such name": nil, "no address": {}} {
		z["a.example"] = none
		got, err := c.Resolve(t.Context(), known)
		if err == nil || len(got) != 2 || got[0].Name != "a.example[192.0.2.1]:25" || got[1].Name != "b.example[192.0.2.3]:25" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if !slices.Equal(known, before) {
			t.Errorf("%s: what was known became %+v", name, known)
		}
	}
}

func TestANameHasABoundedNumberOfAddresses(t *testing.T) {
	z := zone{}
	for i := range 100 {
		z["a.example"] = append(z["a.example"], fmt.Sprintf("192.0.2.%d", i))
	}
	if got, err := hostsClient(t, "smtp://a.example", z).Resolve(t.Context(), nil); err != nil || len(got) != hostAddressesMax {
		t.Errorf("%d, %v", len(got), err)
	}
}

// One machine may be two hosts of a list.
func TestHostsOfOneNameAreToldApartByTheirPorts(t *testing.T) {
	c := hostsClient(t, "smtp://a.example:587,smtps://a.example?priority=3", zone{"a.example": {"192.0.2.1"}})
	addrs, err := c.Resolve(t.Context(), nil)
	if err != nil || len(addrs) != 2 {
		t.Fatalf("%+v, %v", addrs, err)
	}
	for i, want := range []Host{{"a.example", "587", false, 0, 1}, {"a.example", "465", true, 3, 1}} {
		if h, _ := c.find(addrs[i].Name); h != want {
			t.Errorf("%s is of %+v", addrs[i].Name, h)
		}
	}
}

func TestUntilNamesAreResolvedHostsAreDialledByThem(t *testing.T) {
	c := hostsClient(t, "smtp://a.example?weight=3&priority=2,smtp://192.0.2.9", zone{})
	want := []flowctl.Address{{Name: "a.example:25", Priority: 2, Weight: 3}, {Name: "192.0.2.9:25", Weight: 1}}
	if got := c.Addresses(); !slices.Equal(got, want) || !c.Resolves() {
		t.Errorf("%+v, resolves %v", got, c.Resolves())
	}
	if hostsClient(t, "smtp://192.0.2.9,smtp://[2001:db8::1]", zone{}).Resolves() {
		t.Error("literal addresses are asked for")
	}
}

// Certificates are verified for the host that an address belongs to, and server_name for all of them.
func TestEachHostIsVerifiedByItsOwnName(t *testing.T) {
	for name, tc := range map[string]struct {
		addr, serverName string
		want             flowctl.Class
	}{
		"its own":     {"b.example[192.0.2.2]:25", "", flowctl.OK},
		"another's":   {"a.example[192.0.2.1]:25", "", flowctl.Misconfigured},
		"server_name": {"a.example[192.0.2.1]:25", "b.example", flowctl.OK},
	} {
		t.Run(name, func(t *testing.T) {
			good, ca := certificate(t, bubbleTime.Add(time.Hour), "b.example")
			r := &relay{tls: good, implicit: true}
			inBubble(t, r, func(t *testing.T) {
				cl := r.client(t, Config{URL: "smtps://a.example:25,smtps://b.example:25", CAFile: ca, ServerName: tc.serverName})
				dialled, inner := "", cl.cfg.Dial
				cl.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					dialled = address
					return inner(ctx, network, address)
				}
				conn, out := cl.Connect(t.Context(), tc.addr)
				if out.Class != tc.want || dialled == tc.addr {
					t.Errorf("%+v, dialled %s", out, dialled)
				}
				if conn != nil {
					conn.Cut()
				}
			})
		})
	}
}
