package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// TestFilteredNamesAreNoProblem: a resolver that says that it has made its answer up, or that the
// answer is old, does not stop an order.
func TestFilteredNamesAreNoProblem(t *testing.T) {
	for code, want := range map[uint16]Problem{
		0: Absent, dns.ExtendedErrorCodeForgedAnswer: "", dns.ExtendedErrorCodeBlocked: "", dns.ExtendedErrorCodeCensored: "",
		dns.ExtendedErrorCodeFiltered: "", dns.ExtendedErrorCodeProhibited: "", dns.ExtendedErrorCodeStaleNXDOMAINAnswer: "",
	} {
		n := newInternet(t)
		n.serve("192.0.2.1:53", func(w dns.ResponseWriter, q *dns.Msg) {
			a := new(dns.Msg)
			a.SetRcode(q, dns.RcodeNameError)
			if code != 0 {
				a.SetEdns0(1232, false)
				a.IsEdns0().Option = append(a.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: code})
			}
			_ = w.WriteMsg(a)
		})
		r := Resolvers{List: []string{"192.0.2.1:53"}, Exchange: n.exchange}
		for _, look := range []func() (Lookup, error){
			func() (Lookup, error) { return r.Host(t.Context(), shop) },
			func() (Lookup, error) { return r.Zone(t.Context(), shop) },
		} {
			l, err := look()
			if (err == nil) != (want == "") || err == nil && len(l.Doubts) == 0 {
				t.Errorf("code %d: %v, doubts %q", code, err, l.Doubts)
			}
		}
	}
}

// TestSynthesizedAddresses: what a resolver makes of an IPv4 address for networks without IPv4
// (DNS64) is not in DNS, and no CA gets it.
func TestSynthesizedAddresses(t *testing.T) {
	for records, want := range map[string]string{
		a(shop, "203.0.113.1") + a(shop, "64:ff9b::cb00:7101"): "203.0.113.1",
		a(shop, "203.0.113.1") + a(shop, "2001:db8::1"):        "203.0.113.1, 2001:db8::1",
	} {
		n := newInternet(t, strings.Split(strings.TrimSpace(records), "\n")...)
		n.resolver("192.0.2.1:53", "plain")
		l, err := Resolvers{List: []string{"192.0.2.1:53"}, Exchange: n.exchange}.Host(t.Context(), shop)
		if got := joined(l.Addresses); err != nil || got != want {
			t.Errorf("%s, want %s, %v", got, want, err)
		}
	}
}

// TestManyAddresses: a name with thousands of addresses is not fetched from all of them.
func TestManyAddresses(t *testing.T) {
	records := make([]string, 0, 600)
	for i := range cap(records) {
		records = append(records, strings.TrimSpace(a(shop, fmt.Sprintf("198.51.%d.%d", i/250, 1+i%250))))
	}
	n := newInternet(t, records...)
	r := Resolvers{List: []string{"192.0.2.1:53"}, Exchange: func(_ context.Context, q *dns.Msg, _ string) (*dns.Msg, error) { return n.answer(q), nil }}
	var dials atomic.Int32
	results := Site{Name: shop, Resolvers: r, File: &trial, Prober: dcv.Prober{Dial: func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, errors.New("connection refused")
	}}}.Check(t.Context())
	if n := dials.Load(); n > 2*maxAddresses || len(results) > maxAddresses+2 || worst(results) != Warning {
		t.Errorf("%d connections, %d results", n, len(results))
	}
	for _, result := range results {
		if len(result.Message) > 2000 {
			t.Errorf("%d bytes: %.200s", len(result.Message), result.Message)
		}
	}
}
