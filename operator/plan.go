package operator

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Plan is what an action would do.
type Plan struct {
	Action  string   `json:"action"`
	Vendor  string   `json:"vendor"`
	Account string   `json:"account"`
	OrderID string   `json:"order_id,omitempty"`
	Names   []string `json:"names"`
	State   string   `json:"state,omitempty"`
	Entry   string   `json:"entry"`

	// Revision is that of the entry, see Action. Zero if there is none yet.
	Revision int64 `json:"revision,omitempty"`

	// Said is where the order stands, in the vendor's words. It is empty if nobody asked.
	Said string `json:"said,omitempty"`

	// Does is what is done, and Means what the vendor says of that: what is refunded, and what is
	// lost. Until is when it ceases to be possible, if that is known.
	Does  string    `json:"does"`
	Means string    `json:"means,omitempty"`
	Until time.Time `json:"until,omitzero"`

	// Then is what the config does next, and what a person can do about it.
	Then []string `json:"then"`

	// Price is that of the next order, as the vendor writes it.
	Price string `json:"price,omitempty"`
}

// begin begins a plan for an order of the ledger.
func (k known) begin(now time.Time) Plan {
	row := k.row(now)
	return Plan{
		Vendor: row.Vendor, Account: row.Account, OrderID: row.OrderID, Names: row.Names, State: row.State, Entry: row.Entry,
		Revision: k.entry.Revision, Then: []string{},
	}
}

// pricePatience bounds the wait for a price from a vendor.
const pricePatience = 20 * time.Second

// price is that of the next order for the names, as today's config would place it. It is empty if
// the vendor does not tell.
func (k known) price(ctx context.Context) string {
	if k.account == nil {
		return ""
	}
	cfg := k.account.Order(k.entry.Names[0])
	price, _ := k.account.price(ctx, cfg, k.entry.Names)
	if price == "" {
		return ""
	}
	return fmt.Sprintf("%s (%s, %s)", Word(price), cfg.Product, cfg.Term)
}

// WritePlan writes a plan, for people.
func WritePlan(w io.Writer, p Plan) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(table, "%s\t%s\n", what, Word(text))
		}
	}
	order := Word(p.OrderID)
	if p.State != "" {
		order += ", " + p.State
	}
	line("action", p.Action)
	line("order", order)
	line("names", strings.Join(p.Names, ", "))
	line("vendor", p.Vendor+", account "+p.Account)
	line("entry", p.Entry)
	line("the vendor says", p.Said)
	line("does", p.Does)
	line("what that means", p.Means)
	line("possible until", timeOf(p.Until))
	head := "then"
	for _, text := range p.Then {
		line(head, text)
		head = ""
	}
	line("price of the next order", p.Price)
	return table.Flush()
}
