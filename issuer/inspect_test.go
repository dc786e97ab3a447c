package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/libdns/libdns"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/test/zonetest"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestRunningCaddyThatDoesNotAnswer, such as one that is loading a config, does not block the check.
func TestRunningCaddyThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	defer close(ended)
	in := new(inspection)
	if err := in.askRunning(ctx, server.Listener.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// TestTrialsTakeTurns: all names that a DNS provider has wait for their turns with each other, whichever
// issuer they are of.
func TestTrialsTakeTurns(t *testing.T) {
	const issuer = `{"module": "commercial", "vendor": {"name": "digicert", "api_key": "0123456789abcdef"}, "product": %q,
		"dcv": {"method": "dns", "provider": {"name": "issuer_test", "token": %q}}}`
	config := fmt.Sprintf(`{"apps": {"tls": {"certificates": {"automate": ["one.example.com", "two.example.com"]}, "automation": {"policies": [
		{"subjects": ["one.example.com"], "issuers": [`+issuer+`]}, {"subjects": ["two.example.com"], "issuers": [`+issuer+`]}]}}}, "storage": {"module": "file_system", "root": %q}}`,
		"ssl_dv_rapidssl", "a", "ssl_dv_geotrust", "b", t.TempDir())
	c := new(configuration)
	if err := json.Unmarshal([]byte(config), c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	in, err := c.inspect(ctx, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	if len(in.buyers) != 2 {
		t.Fatalf("%d issuers", len(in.buyers))
	}
	one, two := in.buyers[0].iss.proofs.DNS.Turns, in.buyers[1].iss.proofs.DNS.Turns
	if one != two || cap(one) != trialsAtOnce {
		t.Errorf("turns for %d and %d, the same %t", cap(one), cap(two), one == two)
	}
}

// predicting is a vendor whose proofs follow from the CSR, if it has any.
type predicting struct {
	vendors.Vendor
	challenges []vendors.Challenge
}

func (v predicting) Predict(vendors.OrderRequest) ([]vendors.Challenge, error) {
	return v.challenges, nil
}

// TestAliasOfRecord: the check looks at where the CA looks for a record, if there can be a problem.
func TestAliasOfRecord(t *testing.T) {
	hash := predicting{challenges: []vendors.Challenge{{Method: vendors.MethodDNS, RecordName: "_0718", RecordType: "CNAME", RecordValue: "a.b.sectigo.com"}}}
	for title, c := range map[string]struct {
		vendor          vendors.Vendor
		label, override string
		want            check.Verdict // empty if there is no such check
		word            string
	}{
		"a label that is known":                      {predicting{}, "_dnsauth", "", check.OK, "can be where"},
		"a label that is known, without its alias":   {predicting{}, "_dnsauth", "proofs.example", check.Stop, "create the alias: _dnsauth.shop.alias.example CNAME proofs.example"},
		"a label of the CSR":                         {hash, "", "", "", ""},
		"a label of the CSR, without its alias":      {hash, "", "proofs.example", check.Stop, "a CNAME record at _0718.shop.alias.example"},
		"a label that is not known":                  {predicting{}, "", "", "", ""},
		"a label that is not known, and an override": {predicting{}, "", "proofs.example", check.Warning, "known only after the order"},
	} {
		zone := zonetest.Start(t, "alias.example.")
		b := &inspected{iss: &Issuer{vendor: c.vendor}, ledger: new(ledger.Ledger)}
		b.iss.order.Method = vendors.MethodDNS
		b.iss.about = vendors.Description{Methods: []vendors.Method{vendors.MethodDNS}, RecordName: c.label, RecordType: "TXT"}
		b.iss.proofs.Resolvers, b.iss.proofs.Override = []string{zone.Addr}, c.override
		var results []check.Result
		for _, task := range new(inspection).nameTasks(b, "shop.alias.example") {
			if task.Check == "alias" {
				results = append(results, task.Do(t.Context())...)
			}
		}
		if want := min(len(c.want), 1); len(results) != want || want > 0 && (results[0].Verdict != c.want || !strings.Contains(results[0].Message+results[0].Advice, c.word)) {
			t.Errorf("%s: %+v", title, results)
		}
	}
}

// TestRecordThatStays: a trial record that the provider does not remove is told of.
func TestRecordThatStays(t *testing.T) {
	for _, stays := range []bool{false, true} {
		zone := zonetest.Start(t, "stays.example.")
		zone.OnCall(func(_ context.Context, call string, _ []libdns.Record) error {
			if stays && call == "delete" {
				return errors.New("429 too many requests")
			}
			return nil
		})
		b := &inspected{iss: new(Issuer)}
		b.iss.proofs.DNS = &dcv.DNS{Provider: zonetest.Provider{Zone: zone}, Resolvers: []string{zone.Addr}, PropagationTimeout: time.Second}
		r := new(inspection).tryRecord(t.Context(), b, "shop.stays.example")
		if left := zone.Records(); (len(left) > 0) != stays || (r.Verdict == check.OK) == stays || stays && !strings.Contains(r.Message+r.Advice, strings.Fields(left[0])[0]) {
			t.Errorf("%+v, left %q", r, left)
		}
	}
}
