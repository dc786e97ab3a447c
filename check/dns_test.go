package check

import (
	"testing"

	"github.com/miekg/dns"
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
