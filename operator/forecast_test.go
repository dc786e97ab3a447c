package operator

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

var update = flag.Bool("update", false, "write golden files")

// issued returns an order for a year, paid for "paid" days ago, whose certificate was issued "since"
// days ago and lasts for "life" days.
func issued(name string, paid, since, life int, change func(*ledger.Entry)) *ledger.Entry {
	at := func(days int) time.Time { return today.Add(time.Duration(days) * day) }
	e := &ledger.Entry{
		ID: name, Names: []string{name}, Covered: []string{name}, State: ledger.Issued, Issued: 1, Product: "dv", Term: vendors.Term{Years: 1},
		OrderID: "o-" + name, Paid: at(-paid), Ends: ledger.EndOfTerm(at(-paid), vendors.Term{Years: 1}),
		Certificate: &ledger.Certificate{Serial: "s-" + name, NotBefore: at(-since), NotAfter: at(life - since)},
	}
	if change != nil {
		change(e)
	}
	return e
}

// frugal is a vendor that cannot reissue.
type frugal struct{ vendors.Vendor }

// TestForetell covers each rule by which a flow decides, and what follows for the coming days. All
// certificates of 199 days are due 132 days after they were issued, those of 99 days after 66.
func TestForetell(t *testing.T) {
	const ninety = 89 // whose certificates are due 59 days after they were issued
	flagged := func(e *ledger.Entry) {
		e.State, e.Flag = ledger.Open, &ledger.Flag{Reason: "it was revoked", Ended: true}
		e.Certificate.Lost = true
	}
	replaces := func(a *Account) {
		a.Rules = func(name string) Rules {
			return Rules{Allowed: true, Group: []string{name}, ReplaceEnded: true}
		}
	}
	twins := func(a *Account) {
		a.Maybe = func(names []string) []string { return []string{"www." + names[0]} }
	}
	for _, tc := range []struct {
		what    string
		entries []*ledger.Entry
		names   string
		days    int
		change  func(*Account)
		want    string

		unstored string
	}{
		{what: "not bought yet", names: "a", days: 200, want: "0 order a; 132 reissue a; 198 reissue a"},
		{what: "the days of the schedule", names: "a", days: 1100, change: func(a *Account) { a.Order = forYears(3) },
			// 132 is after 2027-03-15, and 858 after 2029-03-15: those for 46 days are due after 30 and two thirds.
			want: "0 order a; 132 reissue a; 198 reissue a; 264 reissue a; 330 reissue a; 396 reissue a; 462 reissue a; 528 reissue a; " +
				"594 reissue a; 660 reissue a; 726 reissue a; 792 reissue a; 858 reissue a; 889 reissue a; 920 reissue a; 950 reissue a; " +
				"981 reissue a; 1012 reissue a; 1042 reissue a; 1073 order a"},
		{what: "bought, and due", entries: []*ledger.Entry{issued("a", 10, 140, 199, nil)}, names: "a", days: 50, want: "0 reissue a"},
		{what: "a certificate that is due before the margin, and one within", entries: []*ledger.Entry{issued("a", 340, 100, 199, nil), issued("b", 330, 100, 199, nil)},
			names: "a b", days: 90, want: "32 order a; 32 order b"},
		{what: "the margin is the config's", entries: []*ledger.Entry{issued("a", 300, 100, 199, nil)}, names: "a", days: 40,
			change: func(a *Account) { a.Margin = func(*ledger.Entry) time.Duration { return 32 * day } }, want: "32 reissue a"},
		{what: "the margin is half of the term at most", entries: []*ledger.Entry{issued("a", 100, 100, 199, nil)}, names: "a", days: 40,
			change: func(a *Account) { a.Margin = func(*ledger.Entry) time.Duration { return 360 * day } }, want: "32 reissue a"},
		{what: "the window is the config's", entries: []*ledger.Entry{issued("a", 100, 100, 200, nil)}, names: "a", days: 90,
			change: func(a *Account) { a.WindowRatio = 0.1 }, want: "80 reissue a"},
		{what: "pending", entries: []*ledger.Entry{issued("a", 1, 0, 0, func(e *ledger.Entry) { e.State, e.Issued, e.Covered, e.Certificate = ledger.Open, 0, nil, nil })},
			names: "a", days: 140, want: "0 pending a; 132 reissue a"},
		{what: "flagged", entries: []*ledger.Entry{issued("a", 100, 100, 199, flagged)}, names: "a b", days: 1, want: "0 flagged a; 0 order b"},
		{what: "flagged, and replaced", entries: []*ledger.Entry{issued("a", 100, 100, 199, flagged)}, names: "a", days: 1, change: replaces, want: "0 order a"},
		{what: "flagged, and replaced once", entries: []*ledger.Entry{issued("a", 200, 200, 199, func(e *ledger.Entry) { e.ID, e.State, e.GivenUp = "x", ledger.Gone, true }),
			issued("a", 100, 100, 199, flagged)}, names: "a", days: 1, change: replaces, want: "0 flagged a"},
		{what: "flagged, and ended by a person", entries: []*ledger.Entry{issued("a", 100, 100, 199, func(e *ledger.Entry) { flagged(e); e.EndedByHand = ledger.Revoked })},
			names: "a", days: 1, change: replaces, want: "0 flagged a"},
		{what: "flagged, and another order serves the name", entries: []*ledger.Entry{issued("a", 100, 100, 199, flagged), issued("a", 1, 1, 199, func(e *ledger.Entry) { e.ID = "y" })},
			names: "a", days: 140, want: "0 flagged a; 131 reissue a"},
		{what: "given up, and what it has given is served", entries: []*ledger.Entry{issued("a", 100, 100, 199, func(e *ledger.Entry) { e.State = ledger.Gone })},
			names: "a", days: 40, want: "32 order a"},
		{what: "lost", entries: []*ledger.Entry{issued("a", 100, 10, 199, func(e *ledger.Entry) { e.Certificate.Lost = true })}, names: "a", days: 10, want: "0 reissue a"},
		{what: "lost within the margin", entries: []*ledger.Entry{issued("a", 350, 10, 199, func(e *ledger.Entry) { e.Certificate.Lost = true })}, names: "a", days: 10, want: "0 order a"},
		{what: "unwanted within the margin", entries: []*ledger.Entry{issued("a", 350, 10, 199, func(e *ledger.Entry) {
			e.Certificate.Lost, e.Certificate.Unwanted = true, true
		})}, names: "a", days: 10, want: "0 reissue a"},
		{what: "the term is over, and its certificate is not", entries: []*ledger.Entry{issued("a", 380, 100, 199, nil)}, names: "a", days: 40, want: "32 order a"},
		{what: "certificates end with the term", entries: []*ledger.Entry{issued("a", 298, 132, 199, nil)}, names: "a", days: 60,
			change: func(a *Account) { a.About.EndsWithTerm = true }, want: "0 reissue a; 44 order a"},
		{what: "certificates are seen to outlast the term", entries: []*ledger.Entry{issued("a", 300, 132, 199, nil), issued("b", 300, 100, 199, nil)}, names: "a", days: 60,
			change: func(a *Account) { a.About.EndsWithTerm = true }, want: "0 reissue a"},
		{what: "certificates are seen to end with the term", entries: []*ledger.Entry{issued("a", 300, 30, 95, nil), issued("b", 300, 132, 199, func(e *ledger.Entry) { e.Ends = e.Ends.Add(20 * day) })},
			names: "b", days: 60, want: "0 reissue b; 56 order b"},
		{what: "certificates are shorter than they may be", entries: []*ledger.Entry{issued("a", 30, 30, ninety, nil)}, names: "a", days: 100, want: "29 reissue a; 88 reissue a"},
		{what: "a group has one order", names: "a b c", days: 1, change: inGroups("b c"), want: "0 order a; 0 order b c"},
		{what: "a group, one of which has an order", entries: []*ledger.Entry{issued("b", 10, 10, 199, nil)}, names: "a b c", days: 1, change: inGroups("a b c"), want: "0 order a c"},
		{what: "what the config does not allow is in no order", names: "a b", days: 1, change: func(a *Account) {
			inGroups("a b x")(a)
			rules := a.Rules
			a.Rules = func(name string) Rules { r := rules(name); r.Allowed = name != "x"; return r }
		}, want: "0 order a b"},
		{what: "the twin comes along", names: "a www.a", days: 140, change: twins, want: "0 order a www.a; 132 reissue a www.a"},
		{what: "the twin did not come along before", entries: []*ledger.Entry{issued("b", 10, 10, 199, func(e *ledger.Entry) { e.Maybe = []string{"www.b"} })},
			names: "a www.a", days: 1, change: twins, want: "0 order a; 0 order www.a"},
		{what: "what came along with the order before comes again", entries: []*ledger.Entry{issued("*.a", 350, 140, 199, func(e *ledger.Entry) { e.Covered = []string{"*.a", "a"} })},
			names: "*.a a", days: 1, want: "0 order *.a a"},
		{what: "no twins in an order of several names", names: "a b", days: 1, change: func(a *Account) { inGroups("a b")(a); twins(a) }, want: "0 order a b"},
		{what: "an order is given for the name", entries: []*ledger.Entry{issued("a", 350, 132, 199, func(e *ledger.Entry) { e.Adopted = true })}, names: "a b", days: 140,
			change: func(a *Account) {
				a.Rules = func(name string) Rules { return Rules{Allowed: true, Group: []string{name}, Adopted: name == "a"} }
			}, want: "0 order b; 0 reissue a; 132 reissue b; 133 none a"},
		{what: "a name that no site needs", entries: []*ledger.Entry{issued("x", 350, 140, 199, nil)}, names: "a", days: 1, want: "0 order a"},
		{what: "the spending limit", names: "a b c d e", days: 3, change: func(a *Account) { a.SpendOrders, a.SpendPer = 2, day },
			want: "0 order a; 0 order b; 1 order c; 1 order d; 2 order e"},
		{what: "what was paid for a moment ago counts", entries: []*ledger.Entry{issued("x", 0, 0, 199, nil)}, names: "a", days: 2,
			change: func(a *Account) { a.SpendOrders, a.SpendPer = 1, day }, want: "1 order a"},
		{what: "an order almost over helps at the limit", entries: []*ledger.Entry{issued("x", 0, 0, 199, nil), issued("a", 350, 140, 199, nil)}, names: "a", days: 2,
			change: func(a *Account) { a.SpendOrders, a.SpendPer = 1, day }, want: "0 reissue a"},
		{what: "new in the config, and the order for it is almost over", entries: []*ledger.Entry{issued("a", 350, 10, 199, func(e *ledger.Entry) { e.Covered = []string{"a", "www.a"} })},
			names: "a www.a", days: 1, unstored: "www.a", want: "0 order www.a"},
		{what: "new in the config, and an order is there", entries: []*ledger.Entry{issued("a", 10, 10, 199, func(e *ledger.Entry) { e.Covered = []string{"a", "www.a"} })},
			names: "a www.a", days: 1, unstored: "www.a", want: ""},
		{what: "what was bought elsewhere does not count for the limit", entries: []*ledger.Entry{issued("x", 0, 0, 199, func(e *ledger.Entry) { e.Adopted = true })}, names: "a", days: 1,
			change: func(a *Account) { a.SpendOrders, a.SpendPer = 1, day }, want: "0 order a"},
		{what: "flagged, and not ended", entries: []*ledger.Entry{issued("a", 100, 100, 199, func(e *ledger.Entry) { flagged(e); e.Flag.Ended = false })},
			names: "a", days: 1, change: replaces, want: "0 flagged a"},
		{what: "ended before its first certificate", entries: []*ledger.Entry{issued("a", 1, 1, 199, func(e *ledger.Entry) { flagged(e); e.Certificate, e.Issued = nil, 0 })},
			names: "a", days: 1, change: replaces, want: "0 flagged a"},
		{what: "flagged, and the term is over", entries: []*ledger.Entry{issued("a", 380, 100, 199, func(e *ledger.Entry) { e.Flag = &ledger.Flag{} })}, names: "a", days: 40, want: "32 order a"},
		{what: "unwanted, and due", entries: []*ledger.Entry{issued("a", 350, 140, 199, func(e *ledger.Entry) {
			e.Certificate.Lost, e.Certificate.Unwanted = true, true
		})}, names: "a", days: 10, want: "0 order a"},
		{what: "given up, and of no help at the limit", entries: []*ledger.Entry{issued("a", 100, 140, 199, func(e *ledger.Entry) { e.State = ledger.Gone }), issued("x", 0, 0, 199, nil)}, names: "a", days: 2,
			change: func(a *Account) { a.SpendOrders, a.SpendPer = 1, day }, want: "1 order a"},
		{what: "a newer order is not given up for a reissue of an older one", names: "a b", days: 100, entries: []*ledger.Entry{
			issued("b", 100, 140, 199, func(e *ledger.Entry) { e.Covered = []string{"a", "b"} }), issued("a", 50, 50, 199, nil)}, want: "0 reissue b a; 82 reissue a"},
		{what: "ends of terms are days", names: "a", days: 400, change: func(a *Account) { a.About.EndsWithTerm, a.About.TermsAreDays = true, true },
			// The last certificate before the margin ends at noon, as does the term.
			want: "0 order a; 132 reissue a; 198 reissue a; 264 reissue a; 330 reissue a; 353 order a"},
		{what: "the margin begins with the day", names: "a", days: 390, change: func(a *Account) {
			a.About.TermsAreDays = true
			a.Margin = func(*ledger.Entry) time.Duration { return 34*day + time.Hour } // until 330 days and 23 hours after it was paid for, or half a day earlier
		}, want: "0 order a; 132 reissue a; 198 reissue a; 264 reissue a; 330 order a"},
		{what: "a group, for one of which an order is given", names: "a b c", days: 1, change: func(a *Account) {
			inGroups("a b c")(a)
			rules := a.Rules
			a.Rules = func(name string) Rules { r := rules(name); r.Adopted = name == "c"; return r }
		}, want: "0 order a b; 0 none c"},
		{what: "reissues that would end at once are not asked for", entries: []*ledger.Entry{issued("a", 364, 132, 199, func(e *ledger.Entry) {
			e.Ends = e.Ends.Add(-12 * time.Hour)
			e.Certificate.NotAfter = e.Ends
		})}, names: "a", days: 3,
			change: func(a *Account) {
				a.About.EndsWithTerm = true
				a.Margin = func(*ledger.Entry) time.Duration { return time.Hour }
			}, want: "0 order a"},
		{what: "an order that is given ends with its term", entries: []*ledger.Entry{issued("a", 364, 300, 301, func(e *ledger.Entry) { e.Adopted, e.Ends = true, e.Ends.Add(-12*time.Hour) })}, names: "a", days: 3,
			change: func(a *Account) {
				a.About.EndsWithTerm = true
				a.Rules = func(string) Rules { return Rules{Allowed: true, Adopted: true} }
			}, want: "0 none a"},
		{what: "a vendor that cannot reissue", entries: []*ledger.Entry{issued("a", 300, 140, 199, nil)}, names: "a", days: 60,
			change: func(a *Account) { a.Vendor = frugal{} }, want: "35 order a"},
	} {
		o := newOffice(t)
		a := o.account("racent", "portal.example")
		if tc.change != nil {
			tc.change(&a)
		}
		names := strings.Fields(tc.names)
		a.Manages = func(name string) bool { return slices.Contains(names, name) }
		var got []string
		a.foretell(tc.entries, names, func(name string) bool { return name != tc.unstored }, vendors.Lifetimes, today, today.AddDate(0, 0, tc.days), func(s Step) bool {
			got = append(got, fmt.Sprintf("%d %s %s", int(s.Time.Sub(today)/day), s.What, strings.Join(s.Names, " ")))
			return true
		})
		if text := strings.Join(got, "; "); text != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.what, text, tc.want)
		}
	}
}

func forYears(n int) func(string) vendors.OrderConfig {
	return func(string) vendors.OrderConfig {
		return vendors.OrderConfig{Product: "dv", Term: vendors.Term{Years: n}}
	}
}

// inGroups makes the names of each list share an order.
func inGroups(lists ...string) func(*Account) {
	return func(a *Account) {
		a.Rules = func(name string) Rules {
			for _, list := range lists {
				if group := strings.Fields(list); slices.Contains(group, name) {
					return Rules{Allowed: true, Group: group}
				}
			}
			return Rules{Allowed: true, Group: []string{name}}
		}
	}
}

// TestForetellChangesNothing: a forecast changes nothing that it is made from.
func TestForetellChangesNothing(t *testing.T) {
	o := newOffice(t)
	a := o.account("racent", "portal.example")
	e := issued("a", 1, 1, 199, nil)
	before, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	a.foretell([]*ledger.Entry{e}, []string{"a"}, nil, vendors.Lifetimes, today, today.AddDate(3, 0, 0), func(Step) bool { return true })
	after, err := json.Marshal(e)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("%s\n%s, %v", before, after, err)
	}
}

// seller is a vendor that reports prices, and counts how often it is asked.
type seller struct {
	vendors.Vendor
	price func(names []string) (string, error)
	asked int
}

func (s *seller) Price(_ context.Context, _ string, names []string, _ vendors.Term) (string, error) {
	s.asked++
	return s.price(names)
}

func (s *seller) Reissue(context.Context, string, vendors.OrderRequest) (vendors.Order, error) {
	return vendors.Order{}, nil
}

// lister is a vendor that lists its products.
type lister struct{ vendors.Vendor }

func (lister) Products(context.Context) ([]vendors.Product, error) {
	return []vendors.Product{{Code: "dv", Prices: map[int]string{12: "5.50"}}}, nil
}

func (lister) Reissue(context.Context, string, vendors.OrderRequest) (vendors.Order, error) {
	return vendors.Order{}, nil
}

// forecasting returns an office whose accounts have names, prices and a flagged order.
func forecasting(t *testing.T) (*office, *seller) {
	o := newOffice(t)
	s := &seller{price: func(names []string) (string, error) { return fmt.Sprintf("%d9.25 USD", len(names)), nil }}
	o.Accounts[0].Vendor, o.Accounts[1].Vendor = lister{}, s
	o.Accounts[0].Names = func() []string {
		return []string{"asks.example", "blog.example", "shop.example", "x.example", "y.example"}
	}
	inGroups("x.example y.example")(&o.Accounts[0])
	o.Accounts[1].Names = func() []string { return []string{"api.example"} }
	o.Accounts[1].OnDemand = true
	o.enter("racent", "portal.example", "shop.example", nil)
	o.enter("racent", "portal.example", "asks.example", func(e *ledger.Entry) {
		e.State, e.Flag = ledger.Open, &ledger.Flag{Since: o.now, Reason: "who knows"}
	})
	o.enter("howssl", "elsewhere.example", "strange.example", nil)
	return o, s
}

// TestForecastTable: the table is what people see, in testdata/forecast.txt.
func TestForecastTable(t *testing.T) {
	o, s := forecasting(t)
	f, err := o.Forecast(t.Context(), Outlook{Days: DefaultDays})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteForecast(&out, Table, f); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "forecast.txt")
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || out.String() != string(want) {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
	if s.asked != 1 {
		t.Errorf("the vendor was asked %d times for one price", s.asked)
	}
}

func TestForecastFormats(t *testing.T) {
	o, _ := forecasting(t)
	f, err := o.Forecast(t.Context(), Outlook{Days: 1, Vendor: "racent"})
	if err != nil || len(f.Totals) != 1 || len(f.Steps) != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	f.Steps[0].Note = "=cmd()"
	var out bytes.Buffer
	if err := WriteForecast(&out, CSV, f); err != nil {
		t.Fatal(err)
	}
	cells, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(cells) != 4 || cells[1][len(cells[1])-1] != "'=cmd()" {
		t.Error(cells, err)
	}
	for i := range reflect.TypeFor[Step]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[Step]().Field(i).Tag.Get("json"), ",")
		if name != "" && !slices.Contains(cells[0], name) {
			t.Errorf("CSV has no %s", name)
		}
	}
	out.Reset()
	if err := WriteForecast(&out, JSON, f); err != nil {
		t.Fatal(err)
	}
	var again Forecast
	if err := json.Unmarshal(out.Bytes(), &again); err != nil || len(again.Steps) != 3 || !again.Steps[1].Time.Equal(f.Steps[1].Time) {
		t.Errorf("%+v, %v", again, err)
	}
	f.Steps = nil
	out.Reset()
	if err := WriteForecast(&out, Table, f); err != nil || !strings.HasPrefix(out.String(), "nothing is needed\n") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

func TestForecastOfNothing(t *testing.T) {
	o, s := forecasting(t)
	for _, tc := range []struct {
		o    Outlook
		want string
	}{
		{Outlook{}, "days: must be from 1 to 4000, got 0"},
		{Outlook{Days: -1}, "got -1"},
		{Outlook{Days: MaxDays + 1}, "got 4001"},
		{Outlook{Days: 1, Vendor: "other"}, `nothing from "other"; it has digicert/api.example/Shop_1, racent/portal.example`},
		{Outlook{Days: 1, Vendor: "racent/other"}, `nothing from "racent/other"`},
	} {
		if _, err := o.Forecast(t.Context(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.o, err)
		}
	}
	// A vendor that cannot be asked is asked only once, and the rest is forecast nevertheless.
	s.price = func([]string) (string, error) { return "", errors.New("no answer") }
	o.Accounts[1].Names = func() []string { return []string{"a.example", "b.example"} }
	s.asked = 0
	f, err := o.Forecast(t.Context(), Outlook{Days: 1, Vendor: "digicert"})
	if err != nil || s.asked != 1 || f.Totals[0].Unpriced != 2 || f.Totals[0].Price != "" {
		t.Errorf("%+v, %v, asked %d times", f.Totals, err, s.asked)
	}
	o.Accounts = nil
	if _, err := o.Forecast(t.Context(), Outlook{Days: 1}); err == nil || !strings.Contains(err.Error(), "no commercial issuer") {
		t.Error(err)
	}
}

// TestForecastNotes: what cannot be read is mentioned, and so is what has no issuer.
func TestForecastNotes(t *testing.T) {
	o, _ := forecasting(t)
	key := ledger.Prefix("racent", "portal.example") + "/entries/20260101t000000-aa.json"
	if err := o.storage.Store(t.Context(), key, []byte("{")); err != nil {
		t.Fatal(err)
	}
	f, err := o.Forecast(t.Context(), Outlook{Days: 1})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(f.Notes, "\n")
	for _, want := range []string{key, "1 of the orders in force", "howssl/elsewhere.example", "only known from TLS handshakes"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestOutlookValues(t *testing.T) {
	o := Outlook{Days: 7, Vendor: "racent/a"}
	if got, err := ParseOutlook(o.Values()); err != nil || got != o {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseOutlook(nil); err != nil || got.Days != DefaultDays {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"days=x", "days=0", "days=4001", "other=1"} {
		key, value, _ := strings.Cut(bad, "=")
		if _, err := ParseOutlook(map[string][]string{key: {value}}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestSums(t *testing.T) {
	var steps []Step
	for _, price := range []string{"5.50", "$10", "5.25", "7 USD", "", "1,000.00", "$0.05"} {
		steps = append(steps, Step{What: StepOrder, Price: price})
	}
	total := totalOf(steps)
	if total.Price != "10.75 + $10.05 + 7.00 USD" || total.Unpriced != 2 || total.Orders != 7 {
		t.Errorf("%+v", total)
	}
}

// TestForecastOfTwoIssuers: two issuers of a config may share an account, each with its own rules
// for its names.
func TestForecastOfTwoIssuers(t *testing.T) {
	o := newOffice(t)
	issuer := func(name string, margin time.Duration) Account {
		a := o.account("racent", "portal.example")
		a.Names = func() []string { return []string{name} }
		a.Manages = func(n string) bool { return n == name }
		a.Margin = func(*ledger.Entry) time.Duration { return margin }
		a.Rules = func(n string) Rules { return Rules{Allowed: true, Group: []string{n}, Adopted: name == "b"} }
		a.Order = func(string) vendors.OrderConfig {
			return vendors.OrderConfig{Product: name, Term: vendors.Term{Years: 1}}
		}
		return a
	}
	o.Desk = NewDesk([]Account{issuer("a", 30*day), issuer("b", day)})
	o.Now = func() time.Time { return o.now }
	f, err := o.Forecast(t.Context(), Outlook{Days: 1})
	if err != nil || len(f.Steps) != 2 || f.Steps[0].What+f.Steps[1].What != StepOrder+StepNone || f.Steps[0].Product != "a" {
		t.Errorf("%+v, %v", f.Steps, err)
	}
	for name, want := range map[string]time.Duration{"a": 30 * day, "b": day} {
		if got := o.Accounts[0].Margin(issued(name, 0, 0, 1, nil)); got != want {
			t.Errorf("%s: margin %s", name, got)
		}
	}
}
