package operator

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const oneDay = 24 * time.Hour

// lifeAt is how long a certificate lasts that is issued then.
func lifeAt(lives []vendors.Lifetime, at time.Time) time.Duration {
	return time.Duration(vendors.LifetimeAt(lives, at).Usual) * oneDay
}

// What a step of a forecast is.
const (
	StepOrder   = "order"   // the only step that is paid for
	StepReissue = "reissue" // another certificate of a paid order
	StepPending = "pending" // a certificate that is on its way already
	StepFlagged = "flagged" // a person is asked, so that nothing can be foretold
	StepNone    = "none"    // a certificate is needed, and the config forbids buying it
)

// Step is what will be done for names of the config, as far as can be foretold.
type Step struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`

	// Names are those that are paid for, and those that the CA is expected to add.
	Names   []string `json:"names"`
	Vendor  string   `json:"vendor"`
	Account string   `json:"account"`
	Product string   `json:"product,omitempty"`
	Term    string   `json:"term,omitempty"`

	// OrderID is that of the order which gives the certificate. Empty for one that is not placed yet.
	OrderID string `json:"order_id,omitempty"`

	// Certificates is how many are issued, and Validations how many names are proven for it.
	Certificates int `json:"certificates"`
	Validations  int `json:"validations"`

	// Price is that of the order, as the vendor writes it. Empty if the vendor does not tell.
	Price string `json:"price,omitempty"`
	Note  string `json:"note,omitempty"`

	entry *ledger.Entry
}

// future simulates an account in the time to come. It acts as a flow of package issuer does, and
// its orders are entries that no ledger has.
type future struct {
	*Account
	lives   []vendors.Lifetime
	short   time.Duration   // how long certificates last if the vendor issues shorter ones; else zero
	cut     bool            // whether certificates end with the term at the latest
	twins   map[string]bool // by product: whether the CA adds the twin of a name
	now     time.Time
	wanted  map[string]bool            // names of the config; false if nothing is foretold for it
	entries map[string][]*ledger.Entry // by the names that they may speak for, the newest first
	have    map[string]*served         // what is served for each name
	queue   dueQueue
	paid    []time.Time // when orders were or will be, oldest first
	issued  int
	yield   func(Step) bool
	over    bool // nobody wants to know more
}

// served is a certificate that is served for a name, and the order that gave it.
type served struct {
	entry *ledger.Entry
	ledger.Certificate
}

// foretell tells what names of the config will need from the account, given the entries of its
// ledger, until a moment, or until yield is false. It asks nobody. A name that is not stored has
// no certificate yet, though an order may be for it; nil means that all are stored.
func (a *Account) foretell(entries []*ledger.Entry, names []string, stored func(name string) bool, lives []vendors.Lifetime, now, until time.Time, yield func(Step) bool) {
	f := &future{
		Account: a, lives: lives, now: now, wanted: make(map[string]bool, len(names)),
		entries: make(map[string][]*ledger.Entry), have: make(map[string]*served), twins: make(map[string]bool), yield: yield,
	}
	for _, name := range names {
		f.wanted[name] = true
	}
	entries = slices.SortedStableFunc(slices.Values(entries), func(e, other *ledger.Entry) int { return e.Paid.Compare(other.Paid) })
	f.learn(entries)
	for _, e := range entries {
		f.enter(*e)
	}
	for name, foretold := range f.wanted {
		if !foretold {
			continue
		}
		// An order that blocks others gives it one.
		if f.have[name] != nil && stored != nil && !f.blocked(name, now) && !stored(name) {
			f.have[name] = nil
		}
		if f.have[name] == nil {
			f.due(name, now)
		}
	}
	for f.queue.Len() > 0 && !f.over {
		next := heap.Pop(&f.queue).(dueName)
		if !next.at.Before(until) {
			return
		}
		if f.wanted[next.name] && f.have[next.name] == next.have {
			f.round(next.name, next.at)
		}
	}
}

// learn sees from the newest certificates where the vendor differs from what is expected.
func (f *future) learn(entries []*ledger.Entry) {
	f.cut = f.About.EndsWithTerm
	var newest time.Time
	for _, e := range entries {
		c := e.Certificate
		if c == nil {
			continue
		}
		if len(e.Names) == 1 && len(e.Maybe) > 0 {
			f.twins[e.Product] = slices.Contains(e.Covered, e.Maybe[0])
		}
		after, short := c.NotAfter.Sub(e.Ends), c.NotAfter.Sub(c.NotBefore) < lifeAt(f.lives, c.NotBefore)-oneDay
		switch {
		case after > oneDay:
			f.cut = false
		case after > -oneDay && short:
			f.cut = true
			continue // it is short because the term was
		}
		if c.NotBefore.After(newest) {
			newest, f.short = c.NotBefore, 0
			if short {
				f.short = c.NotAfter.Sub(c.NotBefore)
			}
		}
	}
}

// enter enters an order of the ledger. They come in the order in which they were paid for.
func (f *future) enter(e ledger.Entry) {
	if !e.Adopted {
		f.paid = append(f.paid, e.Paid)
	}
	about := slices.Compact(slices.Sorted(slices.Values(slices.Concat(e.Names, e.Maybe, e.Covered))))
	if e.Flag != nil && f.rules(e.Names[0]).ReplaceEnded && e.Flag.Ended && e.DeadCertificate() && e.MayBeReplaced(f.about(about), f.now) {
		e.State, e.GivenUp, e.Flag = ledger.Gone, true, nil
	}
	inForce, needed := e.State != ledger.Gone && !e.Over(f.now), false
	for _, name := range about {
		f.entries[name] = slices.Insert(f.entries[name], 0, &e)
		if _, wanted := f.wanted[name]; !wanted || !e.Speaks(name) {
			continue
		}
		needed = true
		if inForce {
			f.wanted[name] = e.Flag == nil
		}
	}
	switch {
	case !needed:
	case inForce && e.Flag != nil:
		f.tell(Step{Time: f.now, What: StepFlagged, Note: e.Flag.Reason, entry: &e})
	case inForce && e.State != ledger.Issued:
		f.issue(&e, f.now)
		f.tell(Step{Time: f.now, What: StepPending, Certificates: 1, entry: &e})
	case e.Certificate != nil:
		f.serve(&e, f.now)
	}
}

// about are the entries for any of the names.
func (f *future) about(names []string) (list []*ledger.Entry) {
	for _, name := range names {
		list = append(list, f.entries[name]...)
	}
	return list
}

// issue has an order give a certificate, which its names get.
func (f *future) issue(e *ledger.Entry, at time.Time) {
	if e.Issued == 0 {
		e.Covered = append(slices.Clone(e.Names), f.added(e)...)
	}
	f.issued++
	e.State, e.Issued = ledger.Issued, e.Issued+1
	e.Certificate = &ledger.Certificate{Serial: fmt.Sprintf("forecast %d", f.issued), NotBefore: at, NotAfter: f.endOf(e, at)}
	f.serve(e, at)
}

// endOf is when a certificate that is issued then will end.
func (f *future) endOf(e *ledger.Entry, at time.Time) time.Time {
	life := lifeAt(f.lives, at)
	if f.short > 0 {
		life = min(life, f.short)
	}
	last := e.Ends
	if exact := ledger.EndOfTerm(e.Paid, e.Term); f.About.TermsAreDays && exact.After(last) && exact.Sub(last) < oneDay {
		last = exact
	}
	if ends := at.Add(life); !f.cut || ends.Before(last) {
		return ends
	}
	return last
}

// added are the names that the CA will add to an order: those that it has added to the last one
// for the same names, or the twin of a single one, unless it did not add that the last time.
func (f *future) added(e *ledger.Entry) []string {
	for _, last := range f.entries[e.Names[0]] {
		if last.Issued > 0 && last.Product == e.Product && slices.Equal(last.Names, e.Names) {
			return slices.DeleteFunc(slices.Clone(last.Covered), func(name string) bool { return slices.Contains(e.Names, name) })
		}
	}
	if adds, known := f.twins[e.Product]; len(e.Names) > 1 || known && !adds {
		return nil
	}
	return e.Maybe
}

// serve serves the latest certificate of an order for its names, unless they have better.
func (f *future) serve(e *ledger.Entry, at time.Time) {
	for _, name := range namesOf(e) {
		if !f.wanted[name] || !e.Speaks(name) || !f.better(e, name) {
			continue
		}
		f.have[name] = &served{e, *e.Certificate}
		due := ledger.RenewalBegins(e.Certificate.NotBefore, e.Certificate.NotAfter, f.WindowRatio)
		if e.Certificate.Lost {
			due = at
		}
		f.due(name, later(due, at))
	}
}

// better reports whether the latest certificate of an order would replace what is served.
func (f *future) better(e *ledger.Entry, name string) bool {
	have := f.have[name]
	if have == nil || have.Lost {
		return true
	}
	return !slices.ContainsFunc(f.entries[name], func(other *ledger.Entry) bool {
		return other != e && other.Paid.After(e.Paid) && other.Certificate != nil && other.Certificate.Serial == have.Serial
	})
}

// round does what is to be done for a name whose certificate is due.
func (f *future) round(name string, at time.Time) {
	have := f.have[name]
	unwanted := have != nil && have.Lost && have.Unwanted && at.Before(ledger.RenewalBegins(have.NotBefore, have.NotAfter, f.WindowRatio))
	again, why := at, ""
	if !unwanted && !f.blocked(name, at) {
		if again, why = f.buy(name, at); again.IsZero() && why == "" {
			return
		}
	}
	// An order whose term is almost over still helps.
	for _, e := range f.entries[name] {
		if e.State != ledger.Gone && !e.Over(at) && e.Speaks(name) {
			f.reissue(e, name, at)
			return
		}
	}
	switch {
	case why != "":
		step := Step{Time: at, What: StepNone, Names: []string{name}, Note: why}
		f.tell(step)
	case again.After(at):
		f.due(name, again)
	}
}

func (f *future) blocked(name string, at time.Time) bool {
	return slices.ContainsFunc(f.entries[name], func(e *ledger.Entry) bool { return e.Blocks(name, f.Margin(e), at) })
}

// buy places an order for a name and those of its group that need one. If that must wait, it
// tells until when, and if it must not be, why.
func (f *future) buy(name string, at time.Time) (again time.Time, why string) {
	if f.rules(name).Adopted {
		return again, "the order that the option order gives for it is used up, and the option forbids placing another one"
	}
	if again := f.limit(at); !again.IsZero() {
		return again, ""
	}
	cfg := f.Order(name)
	e := &ledger.Entry{Names: f.group(name, at), State: ledger.Open, Product: cfg.Product, Term: cfg.Term, Paid: at, Ends: ledger.EndOfTerm(at, cfg.Term)}
	if f.About.TermsAreDays {
		e.Ends = e.Ends.Truncate(oneDay)
	}
	if f.Maybe != nil {
		e.Maybe = f.Maybe(e.Names)
	}
	step := Step{Time: at, What: StepOrder, Certificates: 1, entry: e}
	switch have := f.have[name]; {
	case have == nil:
		step.Note = "not bought yet"
	case have.Lost:
		step.Note = "the present certificate can no longer be used"
	}
	f.issue(e, at)
	for _, n := range e.Covered {
		f.entries[n] = slices.Insert(f.entries[n], 0, e)
	}
	f.paid = append(f.paid, at)
	f.tell(step)
	return time.Time{}, ""
}

// rules are those for a name.
func (f *future) rules(name string) Rules {
	if f.Rules == nil {
		return Rules{Allowed: true, Group: []string{name}}
	}
	return f.Rules(name)
}

// limit is until when the spending limit forbids an order. Zero if it does not.
func (f *future) limit(at time.Time) time.Time {
	if f.SpendOrders <= 0 || len(f.paid) < f.SpendOrders {
		return time.Time{}
	}
	if free := f.paid[len(f.paid)-f.SpendOrders].Add(f.SpendPer); free.After(at) {
		return free
	}
	return time.Time{}
}

// group returns the names of an order: of those that are to share it, the ones that need one.
func (f *future) group(name string, at time.Time) []string {
	return slices.DeleteFunc(slices.Clone(f.rules(name).Group), func(n string) bool {
		r := f.rules(n)
		return !r.Allowed || r.Adopted || f.blocked(n, at)
	})
}

// reissue has a paid order give another certificate.
func (f *future) reissue(e *ledger.Entry, name string, at time.Time) {
	_, able := f.Vendor.(vendors.Reissuer)
	if f.Vendor != nil && !able || f.endOf(e, at).Sub(at) < oneDay {
		// The next order comes soon.
		free := e.Ends.Add(-e.Margin(f.Margin(e)))
		if !free.After(at) {
			free = e.Ends
		}
		f.due(name, free)
		return
	}
	f.issue(e, at)
	f.tell(Step{Time: at, What: StepReissue, Certificates: 1, entry: e})
}

// tell completes a step and tells of it.
func (f *future) tell(s Step) {
	s.Time, s.Vendor, s.Account = s.Time.UTC().Truncate(time.Second), f.About.Name, f.About.Account
	if e := s.entry; e != nil {
		s.Names, s.Product, s.Term, s.OrderID = namesOf(e), e.Product, e.Term.String(), e.OrderID
	}
	s.Validations = s.Certificates * len(s.Names)
	f.over = f.over || !f.yield(s)
}

// due queues a name, for as long as it has the certificate that it has now.
func (f *future) due(name string, at time.Time) {
	have := f.have[name]
	heap.Push(&f.queue, dueName{at, name, have, have != nil && have.entry.Names[0] == name})
}

// dueName is when a certificate is due for a name.
type dueName struct {
	at    time.Time
	name  string
	have  *served
	first bool // certmagic renews for the first name
}

type dueQueue []dueName

func (q dueQueue) Len() int      { return len(q) }
func (q dueQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *dueQueue) Push(x any)   { *q = append(*q, x.(dueName)) }
func (q *dueQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (q dueQueue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	if q[i].first != q[j].first {
		return q[i].first
	}
	return cmp.Or(len(q[i].name)-len(q[j].name), strings.Compare(q[i].name, q[j].name)) < 0
}
