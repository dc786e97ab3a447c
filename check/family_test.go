package check

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// from is a connection without a packet that begins at an address of this machine.
type from struct {
	net.Conn
	addr string
}

func (f from) Close() error        { return nil }
func (f from) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.ParseIP(f.addr)} }

// TestAddressesOfTheOtherFamily: where IPv6 serves the file, an IPv4 address that does not answer to
// this machine stops an order only if this machine is not behind a router, which may send nothing
// back inside, and has IPv4 at all. A router that has no way to the address is no excuse.
func TestAddressesOfTheOtherFamily(t *testing.T) {
	served := web(t).Dial
	for _, c := range []struct {
		title string
		own   string // IPv4 address of this machine; none if empty
		err   error  // of a connection to the address that does not answer
		also  string // another host, by IPv4
		want  Verdict
		word  string
	}{
		{"behind a router", "192.168.1.2", syscall.ECONNREFUSED, "", Warning, "gets no answer there"},
		{"behind a router that gets back inside", "192.168.1.2", syscall.ECONNREFUSED, "ours behind a proxy", Stop, "this one is at fault"},
		{"with a public address", "198.51.100.7", syscall.ECONNREFUSED, "", Stop, "this one is at fault"},
		{"without IPv4", "", syscall.ENETUNREACH, "", Warning, "no IPv4 connectivity"},
		{"with an address that is not routed", "198.51.100.7", syscall.ENETUNREACH, "", Stop, "this one is at fault"},
	} {
		t.Run(c.title, func(t *testing.T) {
			records := a(shop, addressOf("ours", true)) + a(shop, addressOf("nothing", false))
			if c.also != "" {
				records += a(shop, addressOf(c.also, false))
			}
			n := newInternet(t, strings.Split(strings.TrimSpace(records), "\n")...)
			n.resolver("192.0.2.1:53", "plain")
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(addr)
				switch {
				case err != nil:
					return nil, err
				case network == "udp" && c.own == "":
					return nil, syscall.ENETUNREACH
				case network == "udp":
					return from{addr: c.own}, nil
				case host == addressOf("nothing", false):
					return nil, c.err
				}
				return served(ctx, network, addr)
			}
			results := Site{
				Name: shop, Resolvers: Resolvers{List: []string{"192.0.2.1:53"}, Exchange: n.exchange}, File: &trial, Prober: dcv.Prober{Dial: dial},
			}.Check(t.Context())
			said := ""
			for _, r := range results {
				said += r.Message + "\n"
			}
			if got := worst(results); got != c.want || !strings.Contains(said, c.word) {
				t.Errorf("%s, want %s with %q:\n%s", got, c.want, c.word, said)
			}
		})
	}
}
