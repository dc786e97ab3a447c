package operator

import (
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Row is an order in a list. What is not known is left out.
type Row struct {
	Name    string   `json:"name"`  // the first one that was paid for
	Names   []string `json:"names"` // all of them, and those that the CA added
	Vendor  string   `json:"vendor"`
	Account string   `json:"account"`
	Product string   `json:"product,omitempty"`
	OrderID string   `json:"order_id,omitempty"`
	Entry   string   `json:"entry"` // the ID in the ledger

	// State is that of the ledger, or StateOver when the paid term has ended.
	State string `json:"state"`

	CertificateNotAfter time.Time `json:"certificate_not_after,omitzero"`

	// NextRenewal is when the certificate is due: it is reissued, free of charge, or the next
	// order is placed. NextCharge is when that is paid for. Both are left out where no site needs
	// them, and where a person is asked.
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	TermEnds    time.Time `json:"term_ends,omitzero"`
	NextCharge  time.Time `json:"next_charge,omitzero"`

	Flag    string `json:"flag,omitempty"`    // why a person is asked
	Problem string `json:"problem,omitempty"` // the last thing that went wrong

	// Cursor is what Query.After takes to go on after this row.
	Cursor string `json:"-"`
}

func (k known) row(now time.Time) Row {
	row := Row{Vendor: k.place.Vendor, Account: k.place.Account, Entry: k.place.ID, Cursor: k.cursor}
	if k.err != nil {
		row.Problem = k.err.Error()
		return row
	}
	e := k.entry
	row.Name, row.Names = e.Names[0], namesOf(e)
	row.Product, row.OrderID, row.State, row.TermEnds, row.Problem = e.Product, e.OrderID, string(e.State), e.Ends, e.Problem
	if e.Certificate != nil {
		row.CertificateNotAfter = e.Certificate.NotAfter
	}
	if e.Flag != nil {
		row.Flag = e.Flag.Reason
	}
	if why := e.Attempt.Unproven; why != nil && row.Problem == "" && e.State == ledger.Open {
		row.Problem = why.Reason
	}
	if e.Over(now) {
		row.State = StateOver
	}
	if row.State == string(ledger.Issued) && e.Flag == nil && k.managed() {
		row.NextRenewal, row.NextCharge = k.plan(now)
	}
	return row
}

// namesOf are the names that were paid for, and then those that the CA has added.
func namesOf(e *ledger.Entry) []string {
	names := slices.Clone(e.Names)
	for _, name := range e.Covered {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// managed reports whether a site needs a name of the entry, as far as is known.
func (k known) managed() bool {
	return k.account != nil && slices.ContainsFunc(namesOf(k.entry), k.account.Manages)
}

// planAhead is how far a row looks for the next charge. No term is so long.
const planAhead = 20 * 365 * oneDay

// plan tells when the certificate of an entry is due, and when the next order is placed, as a
// forecast would that knows nothing else. The charge is zero if none is to be placed.
func (k known) plan(now time.Time) (renewal, charge time.Time) {
	names := namesOf(k.entry)
	name := names[slices.IndexFunc(names, k.account.Manages)]
	k.account.foretell([]*ledger.Entry{k.entry}, []string{name}, nil, vendors.Lifetimes, now, now.Add(planAhead), func(s Step) bool {
		if renewal.IsZero() {
			renewal = s.Time
		}
		if s.What == StepOrder {
			charge = s.Time
		}
		return charge.IsZero()
	})
	return renewal, charge
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
