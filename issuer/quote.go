package issuer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// quoted is an order that starting the config would place now.
type quoted struct {
	Vendor  string   `json:"vendor"`
	Account string   `json:"account"`
	Product string   `json:"product"`
	Term    string   `json:"term"`
	Names   []string `json:"names"`
	Price   string   `json:"price,omitempty"` // as the vendor writes it
	Notes   []string `json:"notes,omitempty"`
}

// quoteFor works out which of the orders would be placed, and asks for their prices.
func (in *inspection) quoteFor(ctx context.Context, b *inspected, orders [][]string) check.Result {
	about, err := b.about(ctx, slices.Concat(orders...))
	if err != nil {
		return check.Result{Verdict: check.Warning, Message: "it is not known what would be bought: " + err.Error(), Advice: "run the check again"}
	}
	now := b.ledger.Time()
	f := &flow{rules: b.iss.rules}
	var list []quoted
	var covered []string
	for _, group := range orders {
		var names []string
		for _, name := range group {
			if _, adopted := f.adoptedFor(name); !adopted && in.config.has(name) && b.legal(name).Verdict != check.Stop && !f.blocked(about, name, now) && !in.hasCertificate(ctx, b, name) {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		if twin := dcv.Twin(names[0]); b.iss.about.CoversTwin && len(names) == 1 && slices.ContainsFunc(list, func(q quoted) bool { return slices.Contains(q.Names, twin) }) {
			covered = append(covered, names[0])
			continue
		}
		list = append(list, quoted{
			Vendor: b.iss.about.Name, Account: b.iss.about.Account, Product: b.iss.order.Product, Term: b.iss.order.Term.String(),
			Names: names, Notes: in.notes(b, names),
		})
	}
	for i := range list {
		if twin := dcv.Twin(list[i].Names[0]); slices.Contains(covered, twin) {
			list[i].Notes = append(list[i].Notes, twin+" is usually included, and waits to see")
		}
	}
	problem := b.price(ctx, list)
	b.mu.Lock()
	b.quote = list
	b.mu.Unlock()
	if problem != nil {
		return check.Result{Verdict: check.Warning, Message: fmt.Sprintf("starting this config would place %s; the price is not known: %v", countOrders(len(list)), problem),
			Advice: "caddy commercial products lists what the vendor sells"}
	}
	return check.Result{Verdict: check.OK, Message: "starting this config would place " + countOrders(len(list))}
}

func countOrders(n int) string {
	switch n {
	case 0:
		return "no order"
	case 1:
		return "1 order"
	}
	return fmt.Sprintf("%d orders", n)
}

// about reads what the ledger has of names.
func (b *inspected) about(ctx context.Context, names []string) ([]*ledger.Entry, error) {
	if err := b.ledger.Refresh(ctx); err != nil {
		return nil, err
	}
	return b.ledger.About(ctx, names...)
}

// hasCertificate reports whether certmagic has a certificate of the issuer that it would not renew.
func (in *inspection) hasCertificate(ctx context.Context, b *inspected, name string) bool {
	leaf, _, _, err := app.Stored(ctx, b.storage, b.iss.IssuerKey(), name)
	return err == nil && leaf != nil && time.Now().Before(ledger.RenewalBegins(leaf.NotBefore, leaf.NotAfter, b.ratio))
}

// notes are what somebody may not expect of an order.
func (in *inspection) notes(b *inspected, names []string) (notes []string) {
	sites := in.config.sites()
	for _, name := range names {
		if !sites[name] {
			notes = append(notes, name+" is not written as a site")
		}
		if strings.HasPrefix(name, "*.") {
			notes = append(notes, name+" is a wildcard")
		}
	}
	if !b.first {
		notes = append(notes, "only if the issuers before this one fail")
	}
	if !in.config.managed()[names[0]] && !b.iss.AllowOnDemand {
		notes = append(notes, "not by a TLS handshake, as allow_on_demand is not set")
	}
	return notes
}

// price asks for the price of each kind of order.
func (b *inspected) price(ctx context.Context, list []quoted) error {
	known := make(map[int]string) // by number of names
	for i := range list {
		n := len(list[i].Names)
		if _, asked := known[n]; !asked {
			text, err := vendors.Price(ctx, b.iss.vendor, b.iss.order.Product, list[i].Names, b.iss.order.Term)
			if err != nil {
				return err
			}
			known[n] = text
		}
		list[i].Price = known[n]
	}
	return nil
}

// quotes are those of all issuers, as far as they are known.
func (in *inspection) quotes() []quoted {
	all := []quoted{}
	for _, b := range in.buyers {
		b.mu.Lock()
		all = append(all, b.quote...)
		b.mu.Unlock()
	}
	return all
}

// writeQuote writes what starting the config would buy, for people.
func writeQuote(w io.Writer, list []quoted, stopped bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "Starting Caddy with this config would buy nothing now.")
		return err
	}
	when := "now"
	if stopped {
		when = "as soon as nothing stops it"
	}
	fmt.Fprintf(w, "Starting Caddy with this config would place %s %s:\n\n", countOrders(len(list)), when)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "VENDOR\tPRODUCT\tTERM\tPRICE\tNAMES")
	for _, q := range list {
		price := q.Price
		if price == "" {
			price = "not told"
		}
		names := strings.Join(q.Names, ", ")
		if len(q.Notes) > 0 {
			names += " (" + strings.Join(q.Notes, "; ") + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", q.Vendor, operator.Word(q.Product), q.Term, operator.Word(price), operator.Word(names))
	}
	return table.Flush()
}
