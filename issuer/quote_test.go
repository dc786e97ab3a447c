package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// priced is a vendor that knows prices, and nothing else.
type priced struct{ vendors.Vendor }

func (priced) Price(_ context.Context, _ string, names []string, _ vendors.Term) (string, error) {
	return strings.Repeat("5", len(names)) + ".00", nil
}

// TestQuote: what is in the ledger is not bought again, a twin is not bought separately, and a name
// that is not written as a site is marked.
func TestQuote(t *testing.T) {
	const config = `{"apps": {
		"http": {"servers": {"main": {"listen": [":443"], "routes": [{"match": [{"host": [
			"example.com", "www.example.com", "paid.example.com", "one.example.com", "two.example.com", "elsewhere.example.com"]}]}]}}},
		"tls": {
			"certificates": {"automate": ["*.example.net"]},
			"automation": {"policies": [{"issuers": [{"module": "commercial", "vendor": {"name": "racent"}}]}]}
		}
	}}`
	c := new(configuration)
	if err := json.Unmarshal([]byte(config), c); err != nil {
		t.Fatal(err)
	}
	storage := newMemStorage()
	l := &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix("racent", "test"), Memory: new(ledger.Memory)}
	now := l.Time()
	err := l.Create(t.Context(), &ledger.Entry{
		ID: l.NewID(), Names: []string{"paid.example.com"}, State: ledger.Open, OrderID: "7", RootID: "7", Term: vendors.Term{Years: 1},
		Method: vendors.MethodHTTP, Paid: now, Ends: now.AddDate(1, 0, 0), Attempt: ledger.Attempt{Kind: ledger.KindOrder, Reference: "r", Started: now},
	})
	if err != nil {
		t.Fatal(err)
	}
	iss := &Issuer{vendor: priced{}, about: vendors.Description{Name: "racent", Account: "test", CoversTwin: true}}
	iss.order = vendors.OrderConfig{Product: "dv", Term: vendors.Term{Years: 1}, Method: vendors.MethodDNS}
	iss.rules.groups = [][]string{{"one.example.com", "two.example.com"}}
	iss.rules.adopted = []AdoptedOrder{{ID: "9", Names: []string{"elsewhere.example.com"}}}
	b := &inspected{
		iss: iss, storage: storage, first: true, ledger: &ledger.Ledger{Storage: storage, Prefix: l.Prefix, Memory: new(ledger.Memory)},
		names: []string{"*.example.net", "elsewhere.example.com", "example.com", "one.example.com", "paid.example.com", "www.example.com"},
	}
	in := &inspection{config: c, buyers: []*inspected{b}, within: time.Minute}
	if r := in.quoteFor(t.Context(), b, b.orders()); r.Verdict != check.OK || r.Message != "starting this config would place 3 orders" {
		t.Errorf("%+v", r)
	}
	got := in.quotes()
	var names, notes []string
	for _, q := range got {
		names, notes = append(names, strings.Join(q.Names, " ")), append(notes, strings.Join(q.Notes, "; "))
	}
	if want := []string{"*.example.net", "example.com", "one.example.com two.example.com"}; !slices.Equal(names, want) {
		t.Errorf("bought %q, want %q", names, want)
	}
	if want := []string{"*.example.net is not written as a site; *.example.net is a wildcard", "www.example.com is usually included, and waits to see", ""}; !slices.Equal(notes, want) {
		t.Errorf("the notes are %q, want %q", notes, want)
	}
	if len(got) == 3 && (got[0].Price != "5.00" || got[2].Price != "55.00" || got[0].Term != "1 year") {
		t.Errorf("%+v", got)
	}
	var text bytes.Buffer
	if err := writeQuote(&text, got, false); err != nil || !strings.Contains(text.String(), "would place 3 orders now") || !strings.Contains(text.String(), "55.00") {
		t.Errorf("%v\n%s", err, text.String())
	}
	text.Reset()
	if err := writeQuote(&text, nil, true); err != nil || !strings.Contains(text.String(), "would buy nothing now") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// TestCheckedIsWritten: what stops an order comes first, and advice is given only for what is not fine.
func TestCheckedIsWritten(t *testing.T) {
	c := checked{Results: []check.Result{
		{Check: "clock", Name: "racent", Verdict: check.OK, Message: "it agrees", Advice: "none"},
		{Check: "twin", Name: "www.example.com", Verdict: check.Warning, Message: "elsewhere", Advice: "look"},
		{Check: "dns", Name: "example.com", Verdict: check.Stop, Message: "gone\x1b[31m", Advice: "create it"},
	}}
	var text bytes.Buffer
	if err := c.write(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	if !strings.HasPrefix(lines[0], "STOP ") || !strings.Contains(lines[1], "-> create it") || !strings.HasPrefix(lines[2], "warning ") || !strings.HasPrefix(lines[4], "ok ") ||
		strings.Contains(text.String(), "none") || strings.Contains(text.String(), "\x1b") {
		t.Errorf("it says\n%s", text.String())
	}
}
