package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Outlook is what a forecast is to cover.
type Outlook struct {
	// Days is how far it goes. Zero means DefaultDays.
	Days int

	// Vendor is one vendor's name, or vendor/account.
	Vendor string
}

// DefaultDays is how far a forecast goes, and MaxDays how far it can go.
const (
	DefaultDays = 400
	MaxDays     = 4000
)

// Check refuses an outlook that is too short or too long.
func (o Outlook) Check() error {
	if o.Days < 1 || o.Days > MaxDays {
		return fmt.Errorf("days: must be from 1 to %d, got %d", MaxDays, o.Days)
	}
	return nil
}

// ParseOutlook reads an outlook from the parameters of a URL: days and vendor.
func ParseOutlook(values url.Values) (Outlook, error) {
	o := Outlook{Days: DefaultDays, Vendor: values.Get("vendor")}
	for name := range values {
		if name != "days" && name != "vendor" {
			return o, fmt.Errorf("there is no parameter %q", name)
		}
	}
	if text := values.Get("days"); text != "" {
		var err error
		if o.Days, err = strconv.Atoi(text); err != nil {
			return o, fmt.Errorf("days: must be a number, got %q", text)
		}
	}
	return o, o.Check()
}

// Values are the parameters that ParseOutlook reads.
func (o Outlook) Values() url.Values {
	values := url.Values{"days": {strconv.Itoa(o.Days)}}
	if o.Vendor != "" {
		values.Set("vendor", o.Vendor)
	}
	return values
}

// Forecast is what the names of a config will need.
type Forecast struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Steps   []Step    `json:"steps"`
	Totals  []Total   `json:"totals"`
	Changes []Change  `json:"changes"`
	Notes   []string  `json:"notes"`
}

// Total is the sum of all steps of an account.
type Total struct {
	Vendor       string `json:"vendor"`
	Account      string `json:"account"`
	Orders       int    `json:"orders"`
	Reissues     int    `json:"reissues"`
	Certificates int    `json:"certificates"`
	Validations  int    `json:"validations"`

	// Price is the sum of all prices that are known, by currency, and Unpriced how many orders
	// have none.
	Price    string `json:"price,omitempty"`
	Unpriced int    `json:"unpriced,omitempty"`
}

// Change is a day from which certificates have another lifetime, and what of the forecast comes
// from that: without it, there would be so many fewer steps.
type Change struct {
	From        time.Time `json:"from"`
	Days        int       `json:"days"`
	Orders      int       `json:"orders"`
	Reissues    int       `json:"reissues"`
	Validations int       `json:"validations"`
}

// String is for people.
func (c Change) String() string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{c.Reissues, "reissue"}, {c.Orders, "order"}, {c.Validations, "validation"}} {
		n, than := part.n, "more"
		if n == 0 {
			continue
		}
		if n < 0 {
			n, than = -n, "less"
		}
		if n > 1 {
			part.what += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s %s", n, part.what, than))
	}
	if parts == nil {
		parts = []string{"that changes nothing until then"}
	}
	return fmt.Sprintf("from %s certificates last %d days: %s", dayOf(c.From), c.Days, strings.Join(parts, ", "))
}

// Forecast tells what the names of the config will need, from which account and when. It asks
// vendors for nothing but their prices.
func (d *Desk) Forecast(ctx context.Context, o Outlook) (Forecast, error) {
	if err := o.Check(); err != nil {
		return Forecast{}, err
	}
	from := d.now().UTC().Truncate(time.Second)
	f := Forecast{From: from, Until: from.AddDate(0, 0, o.Days), Steps: []Step{}, Totals: []Total{}, Changes: []Change{}, Notes: []string{}}
	accounts := d.accountsOf(o.Vendor)
	if len(accounts) == 0 {
		return f, d.noAccount(o.Vendor)
	}
	entries, err := d.entriesOf(ctx, o.Vendor, &f)
	if err != nil {
		return f, err
	}
	for _, l := range vendors.Lifetimes {
		if l.From.After(f.From) && l.From.Before(f.Until) {
			f.Changes = append(f.Changes, Change{From: l.From, Days: l.Usual})
		}
	}
	slices.SortFunc(accounts, func(a, b *Account) int {
		return cmp.Or(strings.Compare(a.About.Name, b.About.Name), strings.Compare(a.About.Account, b.About.Account))
	})
	for _, a := range accounts {
		f.Steps = append(f.Steps, f.of(ctx, a, entries[a])...)
	}
	slices.SortStableFunc(f.Steps, func(s, other Step) int {
		return cmp.Or(strings.Compare(dayOf(s.Time), dayOf(other.Time)), strings.Compare(s.Vendor, other.Vendor),
			strings.Compare(s.Account, other.Account), s.Time.Compare(other.Time))
	})
	return f, nil
}

func (d *Desk) accountsOf(which string) (list []*Account) {
	vendor, account, both := strings.Cut(which, "/")
	for i, a := range d.Accounts {
		if (vendor == "" || a.About.Name == vendor) && (!both || a.About.Account == account) {
			list = append(list, &d.Accounts[i])
		}
	}
	return list
}

func (d *Desk) noAccount(which string) error {
	if len(d.Accounts) == 0 {
		return refuse("the config has no commercial issuer, so there is nothing to forecast (only a running Caddy knows a sandbox within it)")
	}
	have := make([]string, 0, len(d.Accounts))
	for _, a := range d.Accounts {
		have = append(have, a.About.Name+"/"+a.About.Account)
	}
	slices.Sort(have)
	return refuse("the config buys nothing from %q; it has %s", which, strings.Join(slices.Compact(have), ", "))
}

// entriesOf reads all entries, those of past terms, too, whose certificates may still be served.
func (d *Desk) entriesOf(ctx context.Context, vendor string, f *Forecast) (map[*Account][]*ledger.Entry, error) {
	entries := make(map[*Account][]*ledger.Entry)
	strange := make(map[string]int)
	err := d.each(ctx, Query{Vendor: vendor, Past: true}, func(k known) error {
		switch {
		case k.err != nil:
			f.Notes = append(f.Notes, fmt.Sprintf("it is not known what an order of %s/%s is for: %s", k.place.Vendor, k.place.Account, Word(k.err.Error())))
		case k.account != nil:
			entries[k.account] = append(entries[k.account], k.entry)
		case k.entry.State != ledger.Gone && !k.entry.Over(f.From):
			strange[k.place.Vendor+"/"+k.place.Account]++
		}
		return nil
	})
	for account, n := range strange {
		f.Notes = append(f.Notes, fmt.Sprintf("%d of the orders in force are not in this forecast: the config has no issuer for the account %s", n, account))
	}
	slices.Sort(f.Notes)
	return entries, err
}

// of is the part of a forecast that is about an account.
func (f *Forecast) of(ctx context.Context, a *Account, entries []*ledger.Entry) []Step {
	where := a.About.Name + "/" + a.About.Account
	if a.OnDemand {
		f.Notes = append(f.Notes, fmt.Sprintf("names that are only known from TLS handshakes are not in this forecast: neither what they need from %s nor what that costs", where))
	}
	var names []string
	if a.Names != nil {
		names = a.Names()
	}
	stored := func(name string) bool { return a.Stored == nil || a.Stored(ctx, name) }
	steps := func(lives []vendors.Lifetime) (list []Step) {
		a.foretell(entries, names, stored, lives, f.From, f.Until, func(s Step) bool { list = append(list, s); return true })
		return list
	}
	list := steps(vendors.Lifetimes)
	a.priced(ctx, list)
	total := totalOf(list)
	total.Vendor, total.Account = a.About.Name, a.About.Account
	f.Totals = append(f.Totals, total)
	with := total
	for i := len(f.Changes) - 1; i >= 0; i-- {
		c := &f.Changes[i]
		n := slices.IndexFunc(vendors.Lifetimes, func(l vendors.Lifetime) bool { return l.From.Equal(c.From) })
		without := totalOf(steps(vendors.Lifetimes[:n]))
		c.Orders += with.Orders - without.Orders
		c.Reissues += with.Reissues - without.Reissues
		c.Validations += with.Validations - without.Validations
		with = without
	}
	return list
}

// priced asks the vendor for the prices of orders, each once.
func (a *Account) priced(ctx context.Context, steps []Step) {
	type kind struct {
		product, term string
		names         int
	}
	_, exact := a.Vendor.(vendors.Pricer)
	told, silent := make(map[kind]string), a.Vendor == nil
	for i := range steps {
		s := &steps[i]
		// A list of products has the price for one name only.
		if s.What != StepOrder || silent || !exact && len(s.entry.Names) > 1 {
			continue
		}
		k := kind{s.Product, s.Term, len(s.entry.Names)}
		price, known := told[k]
		if !known {
			var err error
			price, err = a.price(ctx, vendors.OrderConfig{Product: s.entry.Product, Term: s.entry.Term}, s.entry.Names)
			silent = err != nil
			told[k] = price
		}
		s.Price = price
	}
}

// price is that of an order, as the vendor writes it. It is empty if the vendor does not tell.
func (a *Account) price(ctx context.Context, cfg vendors.OrderConfig, names []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pricePatience)
	defer cancel()
	return vendors.Price(ctx, a.Vendor, cfg.Product, names, cfg.Term)
}

// amount is a price as a vendor writes it, with a currency before or after it, or none.
var amount = regexp.MustCompile(`^(\D*)(\d+(?:\.\d+)?)(\D*)$`)

func totalOf(steps []Step) (t Total) {
	sums := make(map[[2]string]*big.Rat)
	var currencies [][2]string
	for _, s := range steps {
		t.Certificates += s.Certificates
		t.Validations += s.Validations
		switch s.What {
		case StepReissue:
			t.Reissues++
		case StepOrder:
			t.Orders++
			parts := amount.FindStringSubmatch(s.Price)
			if parts == nil {
				t.Unpriced++
				continue
			}
			currency := [2]string{parts[1], parts[3]}
			if sums[currency] == nil {
				sums[currency], currencies = new(big.Rat), append(currencies, currency)
			}
			if one, ok := new(big.Rat).SetString(parts[2]); ok {
				sums[currency].Add(sums[currency], one)
			}
		}
	}
	texts := make([]string, 0, len(currencies))
	for _, c := range currencies {
		texts = append(texts, c[0]+sums[c].FloatString(2)+c[1])
	}
	t.Price = strings.Join(texts, " + ")
	return t
}

// WriteForecast writes a forecast: a table with its sums for people, all of it as JSON, or the
// steps as CSV.
func WriteForecast(out io.Writer, format Format, f Forecast) error {
	if format == JSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	}
	w := NewWriter(out, format)
	w.kind = stepList
	for _, s := range f.Steps {
		if err := w.step(s); err != nil {
			return err
		}
	}
	if err := w.End(); err != nil || format == CSV {
		return err
	}
	return f.writeSums(out)
}

func (f Forecast) writeSums(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "\nUNTIL %s\tORDERS\tREISSUES\tCERTIFICATES\tVALIDATIONS\tPRICE\n", dayOf(f.Until))
	for _, t := range f.Totals {
		price := t.Price
		switch {
		case t.Unpriced > 0 && price != "":
			price += fmt.Sprintf(", and %d whose price is not told", t.Unpriced)
		case t.Unpriced > 0:
			price = "not told"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\n", Word(t.Vendor+"/"+t.Account), t.Orders, t.Reissues, t.Certificates, t.Validations, Word(price))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	lines := make([]string, 0, len(f.Changes)+len(f.Notes))
	for _, c := range f.Changes {
		lines = append(lines, c.String())
	}
	for _, line := range append(lines, f.Notes...) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
