package operator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Story is all that is known of an order.
type Story struct {
	Row

	// Paid is when the intent to pay was stored, Term what was paid for, and Method how control of
	// the names is proven.
	Paid   time.Time `json:"paid"`
	Term   string    `json:"term,omitempty"`
	Method string    `json:"method,omitempty"`

	// RootID is the vendor's ID under which it was paid for, if a reissue has changed it.
	RootID    string `json:"root_id,omitempty"`
	CAOrderID string `json:"ca_order_id,omitempty"`
	Adopted   bool   `json:"adopted,omitempty"` // bought elsewhere
	Issued    int    `json:"issued"`            // certificates so far
	Portal    string `json:"portal,omitempty"`  // where a person can look at it

	Certificate *ledger.Certificate `json:"certificate,omitempty"`

	// Request is the latest one for a certificate.
	Request Request `json:"request"`

	Events []ledger.Event `json:"events,omitempty"`

	// Visits are the requests for the validation files of the latest request that reached a server.
	Visits []ledger.Visit `json:"visits,omitempty"`

	// Doing is how the running server stands with it. Nil if none was asked.
	Doing *Doing `json:"doing,omitempty"`

	// Next is the next step in words.
	Next string `json:"next"`
}

// Request is a request for a certificate.
type Request struct {
	Kind      ledger.Kind `json:"kind"`
	Reference string      `json:"reference"`
	Started   time.Time   `json:"started"`

	// Proofs are where the CA looks for the proofs of control that are presented.
	Proofs []string `json:"proofs,omitempty"`
}

// ErrUnknown says that no ledger knows what was asked for.
var ErrUnknown = fmt.Errorf("no ledger knows it")

// Show tells all about the orders for a name, or with an ID, newest first, past ones as well.
func (d *Desk) Show(ctx context.Context, about string) ([]Story, error) {
	now := d.now()
	var list []Story
	q := Query{About: strings.TrimSpace(about), Past: true}
	if q.About == "" {
		return nil, fmt.Errorf("which order? Give a name or the ID of an order")
	}
	err := d.each(ctx, q, func(k known) error {
		row := k.row(now)
		if !q.wants(k, row, now) {
			return nil
		}
		s := k.story(row, now)
		if k.entry != nil {
			var err error
			if s.Visits, err = k.ledger().Visits(ctx, k.entry); err != nil && s.Problem == "" {
				s.Problem = err.Error() // all else is worth being told
			}
		}
		list = append([]Story{s}, list...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		list = d.nameless(q.About)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%q: %w, neither as a name nor as the ID of an order; caddy commercial list shows what there is", q.About, ErrUnknown)
	}
	return list, nil
}

// nameless are the stories of a name that has no order, one for each account that manages it.
func (d *Desk) nameless(name string) (list []Story) {
	name = strings.ToLower(name)
	for i := range d.Accounts {
		a := &d.Accounts[i]
		if !a.Manages(name) {
			continue
		}
		list = append(list, a.story(a.unordered(name)))
	}
	return list
}

// story is that of a name that has no order.
func (a *Account) story(row Row) Story {
	s := Story{Row: row, Portal: a.About.Portal, Next: "an order is placed when Caddy runs"}
	if a.Doing != nil {
		doing := a.Doing(row.Name, nil)
		s.Doing, s.Next = &doing, "an order is placed as soon as nothing is in its way"
	}
	return s
}

// Stories tells all about what a query wants, in the order of List.
func (d *Desk) Stories(ctx context.Context, q Query, yield func(Story) error) error {
	return d.wanted(ctx, q, func(_ Row, story func() Story) error { return yield(story()) })
}

func (k known) story(row Row, now time.Time) Story {
	s := Story{Row: row, Next: "it cannot be read; nothing is bought from its account until a person has looked at it"}
	e := k.entry
	if k.err != nil {
		return s
	}
	s.Paid, s.Term, s.Method = e.Paid, e.Term.String(), string(e.Method)
	if e.RootID != e.OrderID {
		s.RootID = e.RootID
	}
	s.CAOrderID, s.Adopted, s.Issued, s.Certificate, s.Events = e.CAOrderID, e.Adopted, e.Issued, e.Certificate, e.Story
	s.Request = Request{Kind: e.Attempt.Kind, Reference: e.Attempt.Reference, Started: e.Attempt.Started}
	if e.State == ledger.Asked || e.State == ledger.Open {
		s.Request.Proofs = proofs(e)
	}
	if k.account != nil {
		s.Portal = k.account.About.Portal
		if k.account.Doing != nil && !k.place.Past {
			doing := k.account.Doing(e.Names[0], e)
			s.Doing = &doing
		}
	}
	s.Next = k.next(row, now)
	return s
}

func proofs(e *ledger.Entry) (list []string) {
	for _, c := range e.Attempt.Challenges {
		names := e.Names
		if c.Name != "" {
			names = []string{c.Name}
		}
		for _, name := range names {
			host := strings.TrimPrefix(name, "*.")
			switch {
			case c.FileName != "" && c.Method == vendors.MethodHTTPS:
				list = append(list, "https://"+host+"/.well-known/pki-validation/"+c.FileName)
			case c.FileName != "":
				list = append(list, "http://"+host+"/.well-known/pki-validation/"+c.FileName)
			case c.RecordType != "":
				list = append(list, strings.TrimPrefix(c.RecordName+"."+host, ".")+" "+c.RecordType)
			}
		}
	}
	return list
}

// next says what comes next, and who does it.
func (k known) next(row Row, now time.Time) string {
	e := k.entry
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	switch {
	case row.State == StateOver:
		return "nothing: its paid term has ended"
	case e.State == ledger.Gone:
		return "nothing: there is no such order, or it was given up"
	case e.Flag != nil:
		return fmt.Sprintf("it needs your decision; meanwhile the vendor is asked once a day. Look at the order in the vendor's portal, then: "+
			"caddy commercial resolve %s --order <id> if it is good, or --none if there is none or it is given up", e.Names[0])
	case k.account == nil:
		return "nothing: the config has no issuer for this account (for a sandbox within Caddy, only a running Caddy can tell)"
	case !k.managed():
		return "nothing: no site of the config needs its names"
	case e.State == ledger.Asked && now.Sub(e.Attempt.Started) < e.Attempt.AbsenceAge:
		return fmt.Sprintf("the vendor's answer is waited for; if it was lost, the vendor is asked until %s whether it has the request",
			e.Attempt.Started.Add(e.Attempt.AbsenceAge).UTC().Format(time.RFC3339))
	case e.State == ledger.Asked:
		return "the vendor is asked whether it has the request; nothing else is bought until that is known"
	case e.State == ledger.Open:
		return "the vendor and its CA validate and issue; the order is looked at until they have"
	case row.NextCharge.IsZero():
		return fmt.Sprintf("the certificate is reissued, free of charge, from %s on, until the term ends on %s; no other order is placed by itself, as the option order gives this one",
			day(row.NextRenewal), day(row.TermEnds))
	case row.NextCharge.Equal(row.NextRenewal):
		return fmt.Sprintf("another order is placed, and paid for, from %s on", day(row.NextCharge))
	}
	return fmt.Sprintf("the certificate is reissued, free of charge, from %s on; another order is placed, and paid for, from about %s on",
		day(row.NextRenewal), day(row.NextCharge))
}
