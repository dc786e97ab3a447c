package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Reconciliation is a request to compare ledgers with what their vendors have.
type Reconciliation struct {
	// Vendor is one vendor's name, or vendor/account. Empty is all accounts of the config.
	Vendor string `json:"vendor,omitempty"`

	// Adopt is whether orders in force that no ledger knows, for names of the config, are to be
	// taken up. Orders limits that to these IDs; empty is all.
	Adopt  bool     `json:"adopt,omitempty"`
	Orders []string `json:"orders,omitempty"`

	// Note, By, Confirm and DryRun are those of Action. They are about what is adopted.
	Note    string `json:"note,omitempty"`
	By      string `json:"by,omitempty"`
	Confirm bool   `json:"confirm,omitempty"`
	DryRun  bool   `json:"dry_run,omitempty"`
}

// Audit is what the comparison of an account came to.
type Audit struct {
	Vendor  string `json:"vendor"`
	Account string `json:"account"`

	// Listed is how many orders the vendor lists, and Entries how many of the ledger are in
	// force. NoList is whether the vendor has no list, so that it was asked for each of those.
	Listed  int  `json:"listed"`
	Entries int  `json:"entries"`
	NoList  bool `json:"no_list,omitempty"`

	// Notes are what a person should know, such as that the list may not have all orders. Problem is
	// why the comparison broke off.
	Notes   []string `json:"notes,omitempty"`
	Problem string   `json:"problem,omitempty"`

	Findings []Finding `json:"findings"`
}

// Open is how many findings there are that have not been dealt with.
func (a Audit) Open() (n int) {
	for _, f := range a.Findings {
		if !f.Adopted {
			n++
		}
	}
	return n
}

// Finding is a difference between the ledger and the vendor.
type Finding struct {
	Kind    Difference `json:"kind"`
	OrderID string     `json:"order_id,omitempty"`
	Entry   string     `json:"entry,omitempty"`
	Names   []string   `json:"names"`

	// Here is what the ledger says, There what the vendor does.
	Here  string `json:"here,omitempty"`
	There string `json:"there,omitempty"`

	// Words say more, such as what a person can do.
	Words string `json:"words,omitempty"`

	// Adoptable is whether it would be taken up, and Adopted whether it was.
	Adoptable bool `json:"adoptable,omitempty"`
	Adopted   bool `json:"adopted,omitempty"`

	deed deed
}

// Difference is a kind of finding.
type Difference string

// The differences.
const (
	FoundUnknown Difference = "unknown" // an order in force that the ledger does not know
	FoundMissing Difference = "missing" // an entry whose order the vendor does not know
	FoundState   Difference = "state"   // another one at the vendor
	FoundSerial  Difference = "certificate"
	FoundTerm    Difference = "term"
	FoundTwice   Difference = "twice" // several orders in force for a name
	FoundDamaged Difference = "damaged"
)

// termSlack is how far apart the ends of a term may be: some vendors tell them without a zone.
const termSlack = 48 * time.Hour

// Reconcile compares the ledgers of the config with what their vendors have. Nothing is changed but
// that unknown orders are adopted, if that is wanted and confirmed.
func (d *Desk) Reconcile(ctx context.Context, r Reconciliation) ([]Audit, error) {
	var audits []*audit
	for i := range d.Accounts {
		if account := &d.Accounts[i]; account.is(r.Vendor) {
			audits = append(audits, &audit{
				Audit:   Audit{Vendor: account.About.Name, Account: account.About.Account, Findings: []Finding{}},
				account: account, now: d.now(), orders: make(map[string]vendors.ListedOrder), inForce: make(map[string][]string),
			})
		}
	}
	switch {
	case len(d.Accounts) == 0:
		return nil, refuse("there is no config with a commercial issuer; name it with --config")
	case len(audits) == 0:
		return nil, refuse("the config has no issuer of %s; its commercial issuers are of %s", r.Vendor, strings.Join(d.accounts(), ", "))
	}
	// The vendors first: what is ordered meanwhile is not taken for unknown then.
	for _, a := range audits {
		a.list(ctx)
	}
	if err := d.each(ctx, Query{Past: true}, func(k known) error {
		i := slices.IndexFunc(audits, func(a *audit) bool { return a.account == k.account })
		_, damaged := errors.AsType[*ledger.DamagedEntryError](k.err)
		switch {
		case i < 0:
		case k.err != nil && !damaged:
			return k.err
		default:
			audits[i].note(k)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	list := make([]Audit, 0, len(audits))
	for _, a := range audits {
		a.compare(ctx)
		a.unknown(ctx, d, r)
		a.twice()
		a.adopt(ctx, r)
		list = append(list, a.Audit)
	}
	slices.SortFunc(list, func(a, b Audit) int {
		return cmp.Or(strings.Compare(a.Vendor, b.Vendor), strings.Compare(a.Account, b.Account))
	})
	return list, nil
}

// audit is a comparison under way.
type audit struct {
	Audit
	account *Account
	now     time.Time
	orders  map[string]vendors.ListedOrder // of the vendor, by ID
	held    []held
	inForce map[string][]string // IDs of orders by name
}

// held is what matters of an entry.
type held struct {
	id        string
	orders    []string // IDs that it is known by
	reference string
	names     []string
	state     ledger.State
	ended     bool // a person is asked because it has
	flagged   bool
	lost      bool
	serial    string
	ends      time.Time
}

func (a *audit) list(ctx context.Context) {
	lister, ok := a.account.Vendor.(vendors.Auditor)
	if !ok {
		a.NoList = true
		return
	}
	err := lister.ListOrders(ctx, func(o vendors.ListedOrder) error {
		a.orders[o.ID] = o
		return nil
	})
	a.Listed = len(a.orders)
	switch {
	case errors.Is(err, vendors.ErrUndecidable):
		a.Notes = append(a.Notes, "the list may not have all orders: "+err.Error())
	case err != nil:
		a.Problem = fmt.Sprintf("asking %s for its orders: %v", a.Vendor, err)
	}
}

// note takes up an entry of the ledger.
func (a *audit) note(k known) {
	if k.err != nil {
		a.Findings = append(a.Findings, Finding{Kind: FoundDamaged, Entry: k.place.ID, Names: []string{}, Words: k.err.Error()})
		return
	}
	e := k.entry
	h := held{
		id: e.ID, orders: []string{e.OrderID, e.RootID, e.Attempt.PreviousID}, reference: e.Attempt.Reference, names: namesOf(e), state: e.State,
		flagged: e.Flag != nil, ended: e.Flag != nil && e.Flag.Ended, lost: e.LostCertificate(), ends: e.Ends,
	}
	if e.Certificate != nil && e.State == ledger.Issued {
		h.serial = e.Certificate.Serial
	}
	a.held = append(a.held, h)
	if e.State == ledger.Gone || e.Over(a.now) {
		return
	}
	a.Entries++
	for _, name := range h.names {
		if e.Blocks(name, a.account.Margin(e), a.now) {
			a.inForce[name] = append(a.inForce[name], cmp.Or(e.OrderID, e.Attempt.Reference))
		}
	}
}

// compare looks at each entry that is in force, or that was given up.
func (a *audit) compare(ctx context.Context) {
	for _, h := range a.held {
		if a.Problem != "" {
			return
		}
		id := h.orders[0]
		if id == "" || h.state == ledger.Asked || !a.now.Before(h.ends) {
			continue
		}
		o, listed := a.orders[id]
		if h.state == ledger.Gone && (!listed || a.inForceHere(id)) {
			continue
		}
		if listed && len(a.differences(h, o)) == 0 {
			continue
		}
		// What a list says may be out of date by now, and some list no old orders.
		order, err := a.look(ctx, h)
		switch {
		case errors.Is(err, vendors.ErrNotFound):
			a.find(h, Finding{Kind: FoundMissing, Here: string(h.state), There: "no such order",
				Words: "is it another account's? caddy commercial show " + id})
		case err != nil:
			a.Problem = fmt.Sprintf("asking %s for order %s: %v", a.Vendor, id, err)
		default:
			told := vendors.ListedOrder{ID: id, Status: order.Status, RawStatus: order.Describe(), Serial: order.Serial, TermEnds: order.TermEnds}
			for _, f := range a.differences(h, told) {
				a.find(h, f)
			}
		}
	}
}

// inForceHere reports whether another entry goes on with an order.
func (a *audit) inForceHere(id string) bool {
	return slices.ContainsFunc(a.held, func(h held) bool { return h.state != ledger.Gone && slices.Contains(h.orders, id) })
}

// look asks the vendor for an order, as cheaply as it can.
func (a *audit) look(ctx context.Context, h held) (vendors.Order, error) {
	if w, ok := a.account.Vendor.(vendors.Watcher); ok && h.state == ledger.Issued {
		return w.Look(ctx, h.orders[0])
	}
	return a.account.Vendor.Status(ctx, h.orders[0])
}

func (a *audit) find(h held, f Finding) {
	f.Entry, f.OrderID, f.Names = h.id, h.orders[0], h.names
	a.Findings = append(a.Findings, f)
}

// differences are those between an entry and what the vendor tells of its order.
func (a *audit) differences(h held, o vendors.ListedOrder) (list []Finding) {
	here, there := string(h.state), cmp.Or(o.RawStatus, string(o.Status), "no status")
	other := func(words string) {
		if h.flagged {
			here += ", flagged"
		}
		list = append(list, Finding{Kind: FoundState, Here: here, There: Word(there), Words: words})
	}
	lives := o.Status == vendors.StatusIssued || o.Status == vendors.StatusPending
	switch {
	case h.state == ledger.Gone && lives && (o.TermEnds.IsZero() || a.now.Before(o.TermEnds)):
		other("it was given up here, and is in force there")
		return list
	case h.state == ledger.Gone:
		return nil
	case h.ended && lives:
		other("the vendor says that it is active after all; to go on with it: caddy commercial resolve " + h.names[0] + " --order " + o.ID)
	case h.ended, h.lost && o.Status == vendors.StatusRevoked:
	case o.Status.Ended():
		other("Caddy asks the vendor about issued orders once per watch, and notices it then")
	case h.state == ledger.Issued && o.Status == vendors.StatusPending:
		other("somebody has it reissued elsewhere")
	case h.flagged && h.state == ledger.Open && o.Status == vendors.StatusIssued:
		other("it has a certificate; Caddy asks the vendor once a day while it needs a decision")
	}
	if o.Serial != "" && h.serial != "" && o.Serial != h.serial {
		list = append(list, Finding{Kind: FoundSerial, Here: h.serial, There: o.Serial, Words: "somebody had it reissued elsewhere"})
	}
	if !o.TermEnds.IsZero() && lives && o.TermEnds.Sub(h.ends).Abs() > termSlack {
		list = append(list, Finding{Kind: FoundTerm, Here: dayOf(h.ends), There: dayOf(o.TermEnds), Words: "Caddy follows the vendor's word"})
	}
	return list
}

// unknown finds the orders in force that the ledger does not know, and which of them can be adopted.
func (a *audit) unknown(ctx context.Context, d *Desk, r Reconciliation) {
	if a.Problem != "" {
		return // what is known is not enough to decide on
	}
	known := make(map[string]bool)
	for _, h := range a.held {
		ids := h.orders
		if h.state != ledger.Gone || h.orders[0] != "" { // else it was taken for never placed, which may be wrong
			ids = append(slices.Clone(ids), h.reference)
		}
		for _, id := range ids {
			known[id] = id != ""
		}
	}
	var list []vendors.ListedOrder
	for _, o := range a.orders {
		over := !o.TermEnds.IsZero() && !a.now.Before(o.TermEnds)
		if !known[o.ID] && !known[o.Reference] && !o.Status.Ended() && !over {
			list = append(list, o)
		}
	}
	// Of several for a name, the one that lasts longest is adopted.
	slices.SortFunc(list, func(a, b vendors.ListedOrder) int {
		return cmp.Or(b.TermEnds.Compare(a.TermEnds), b.Created.Compare(a.Created), strings.Compare(b.ID, a.ID))
	})
	taken := make(map[string]bool)
	for _, o := range list {
		f := Finding{Kind: FoundUnknown, OrderID: o.ID, Names: slices.Clone(o.Names), There: Word(cmp.Or(o.RawStatus, string(o.Status)))}
		if f.Names == nil {
			f.Names = []string{}
		}
		managed := slices.IndexFunc(o.Names, a.account.Manages)
		switch {
		case managed < 0:
			f.Words = "no site of the config needs its names"
		case slices.ContainsFunc(o.Names, func(name string) bool { return taken[name] }):
			f.Words = "another order for the name is adopted before it"
		default:
			var err error
			if f.deed, err = d.adoptFor(ctx, a.account, o.Names[managed], o.ID, Action{Note: r.Note, By: r.By}.words("reconcile --adopt")); err != nil {
				f.Words = err.Error()
				break
			}
			f.Adoptable, f.Words = true, "can be adopted"
			for _, name := range f.deed.plan.Names {
				taken[name] = true
			}
		}
		a.Findings = append(a.Findings, f)
		for _, name := range o.Names {
			if a.account.Manages(name) || len(a.inForce[name]) > 0 {
				a.inForce[name] = append(a.inForce[name], o.ID)
			}
		}
	}
}

// twice finds the names that several orders are in force for.
func (a *audit) twice() {
	names := make(map[string][]string) // by the orders
	for name, orders := range a.inForce {
		slices.Sort(orders)
		if orders = slices.Compact(orders); len(orders) > 1 {
			key := strings.Join(orders, ", ")
			names[key] = append(names[key], name)
		}
	}
	for _, orders := range slices.Sorted(maps.Keys(names)) {
		slices.Sort(names[orders])
		a.Findings = append(a.Findings, Finding{
			Kind: FoundTwice, Names: names[orders], Here: orders, Words: "several orders are in force; one of them is paid for in vain",
		})
	}
}

// adopt takes up what can be, if that is wanted and confirmed.
func (a *audit) adopt(ctx context.Context, r Reconciliation) {
	if !r.Adopt || !r.Confirm || r.DryRun {
		return
	}
	var entered []*ledger.Entry
	for i := range a.Findings {
		f := &a.Findings[i]
		if !f.Adoptable || len(r.Orders) > 0 && !slices.Contains(r.Orders, f.OrderID) || ctx.Err() != nil {
			continue
		}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), doPatience)
		said, err := f.deed.do(one)
		cancel()
		if f.Words, f.Adopted = said, err == nil; err != nil {
			f.Words = err.Error()
			continue
		}
		entered = append(entered, f.deed.entered)
	}
	if len(entered) > 0 {
		a.Notes = append(a.Notes, a.account.meanwhile(ctx, entered...)...)
	}
}

// WriteAudits writes what comparisons came to, for people.
func WriteAudits(w io.Writer, audits []Audit) error {
	for _, a := range audits {
		what := fmt.Sprintf("%d orders listed", a.Listed)
		if a.NoList {
			what = "has no list of orders, so each one of the ledger was asked for"
		}
		fmt.Fprintf(w, "%s/%s: %s, %d in force in the ledger; findings: %d\n", a.Vendor, a.Account, what, a.Entries, len(a.Findings))
		for _, warning := range append(a.Notes, a.Problem) {
			if warning != "" {
				fmt.Fprintf(w, "warning: %s\n", Word(warning))
			}
		}
		if len(a.Findings) == 0 {
			continue
		}
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(table, "FINDING\tORDER\tNAMES\tLEDGER\tVENDOR\tWORDS")
		for _, f := range a.Findings {
			kind := string(f.Kind)
			if f.Adopted {
				kind += ", adopted"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", kind, Word(cmp.Or(f.OrderID, f.Entry)), Word(strings.Join(f.Names, " ")), Word(f.Here), Word(f.There), Word(f.Words))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}
