package proof

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// following makes a resolver of an exchange: it adds the alias to whatever it is asked for.
func following(exchange func(context.Context, *dns.Msg, string) (*dns.Msg, error)) func(context.Context, *dns.Msg, string) (*dns.Msg, error) {
	return func(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
		asked := q.Question[0]
		q.Question[0].Qtype = dns.TypeCNAME
		alias, err := exchange(ctx, q, server)
		q.Question[0] = asked
		if err != nil || len(alias.Answer) > 0 {
			return alias, err
		}
		return exchange(ctx, q, server)
	}
}

// TestRecordWithoutPlace: before an order is paid, it is known whether the record can be where the
// CA looks, or an alias leads to it.
func TestRecordWithoutPlace(t *testing.T) {
	const old = "_dnsauth.shop.example.com. 60 IN CNAME old.example.org."
	digicert := vendors.Description{RecordName: "_dnsauth", RecordType: "TXT"}
	trial := func(d vendors.Description) Proof {
		return Proof{ID: "1", Names: []string{"shop.example.com", "blog.example.com"}, Method: vendors.MethodDNS, Trial: Trial("1", vendors.MethodDNS, d)}
	}
	hash := hashProof("1", "shop.example.com")
	for title, c := range map[string]struct {
		about    vendors.Description
		override string
		proof    Proof
		records  string
		want     string // in the error; empty is none
		doubt    string
	}{
		"an alias at the label":               {about: digicert, proof: trial(digicert), records: old, want: "where there is a record CNAME old.example.org already"},
		"nothing at the label":                {about: digicert, proof: trial(digicert)},
		"our own record of a paid order":      {about: digicert, proof: textProof("1", "mine", "shop.example.com"), records: old},
		"a label that is not known":           {proof: trial(vendors.Description{}), records: old},
		"an override without alias":           {about: digicert, override: "proofs.place.example", proof: trial(digicert), want: "_dnsauth.shop.example.com is not an alias (CNAME) of proofs.place.example"},
		"an override, and all names are told": {about: digicert, override: "proofs.place.example", proof: trial(digicert), want: "2 problems: 1. override_domain: _dnsauth.shop"},
		"an override with its alias": {about: digicert, override: "proofs.place.example", proof: trial(digicert),
			records: "_dnsauth.example.com. 60 IN CNAME proofs.place.example."},
		"an override, and a label of the CSR":       {override: "proofs.place.example", proof: hash, want: "a CNAME record at _0718.shop.example.com"},
		"a label of the CSR":                        {proof: hash},
		"an override, and a label that is not told": {override: "proofs.place.example", proof: trial(vendors.Description{}), doubt: "known only after the order"},
	} {
		for _, mode := range []Mode{ModeDefault, ModeStrict, ModeWarn, ModeOff} {
			zone := zonetest.Start(t, "place.example.")
			m, logs := newProver(t, func(config *Config) {
				elsewhere(t, "example.com. 60 IN SOA ns1.example.com. h.example.com. 7 3600 600 86400 60", cmp.Or(c.records, "x.example.com. 60 IN A 203.0.113.1"))(config)
				config.Exchange = following(config.Exchange)
				config.About.RecordName, config.About.RecordType = c.about.RecordName, c.about.RecordType
				r, _ := newRecords(zone, true, mode)
				r.dns.PropagationTimeout = -1
				config.DNS, config.Override, config.Mode, config.Identities = r.dns, c.override, mode, nil
			})
			err := m.Wait(t.Context(), c.proof)
			stops := c.want != "" && (mode == ModeDefault || mode == ModeStrict)
			if _, is := errors.AsType[*check.PlaceError](err); is != stops || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, mode %q: error = %v, want %q", title, mode, err, c.want)
			}
			warned := logs.FilterMessageSnippet("ordering all the same").Len() > 0
			if want := c.want != "" && mode == ModeWarn; warned != want {
				t.Errorf("%s, mode %q: warned %t", title, mode, warned)
			}
			doubted := logs.FilterMessageSnippet("whether the CA finds the record is not certain").Len() > 0
			if want := c.doubt != "" && mode != ModeOff; doubted != want {
				t.Errorf("%s, mode %q: doubted %t", title, mode, doubted)
			}
		}
	}
}
