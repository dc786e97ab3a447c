package model

import (
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const day = 24 * time.Hour

// Locks is how far the storage's locks can be trusted.
type Locks int

// The kinds of locks. Leases of a dead process run out after a minute in all of them.
const (
	LocksGood  Locks = iota // they exclude
	LocksLossy              // a lock is lost a minute after it was granted
	LocksNone               // everybody gets every lock immediately
)

// Trait is a property of the vendors that is fixed, or drawn for each history.
type Trait int

// The values of a Trait.
const (
	Drawn Trait = iota
	Yes
	No
)

// Params are the properties of the world and the assumptions that the rules rest on.
type Params struct {
	// Visible is the longest time until another server sees what was stored or deleted.
	// 0 is at once.
	Visible time.Duration

	// Settle is how long a system waits for others' writes to become visible before it
	// lists. It must be at least Visible.
	Settle time.Duration

	Locks Locks

	// Crash means that one in this many operations kills its process. 0 means that none
	// does.
	Crash int

	// LateStore is how late a write may land whose caller gave up after StoreTimeout. 0
	// means that such writes never land.
	LateStore time.Duration

	// Lie is how long a vendor may deny an order that it has.
	Lie time.Duration

	// Land is how late a paid request arrives whose caller has given up.
	Land time.Duration

	// PaidTimeout bounds a paid call; the caller knows nothing when it has passed.
	PaidTimeout time.Duration

	// LateCheck is the longest time from the write that announces an order to its sending.
	LateCheck time.Duration

	// PauseBeforeSend is the longest stop of a process between that check and the sending.
	PauseBeforeSend time.Duration

	// AbsenceAge is the age of an attempt from which an empty lookup at a vendor proves
	// absence: at least LateCheck + PauseBeforeSend + PaidTimeout + Land + Lie.
	AbsenceAge time.Duration

	// Skew is the largest difference of a wall clock from the true time.
	Skew time.Duration

	// Limit is how many orders one line may buy in a day.
	Limit int

	// Person is how long it takes until a person looks again at what was flagged.
	Person time.Duration

	// Life is the time from issuance to the end of a certificate, or of the order's term.
	Life time.Duration

	// Terms are the paid terms, in days, that configs choose from, and Margins the times
	// before a term's end from which a new order may be bought.
	Terms   []int
	Margins []time.Duration

	// Pauses are the times between two steps of the chaos.
	Pauses []time.Duration

	// Ready are the times that a vendor may take to issue; the first one in the calm.
	Ready []time.Duration

	// MaxWait is the longest that a call of Issue waits.
	MaxWait time.Duration

	// Chaos is how long the first part of a history lasts. In the calm after it every
	// name has its certificate after Bound and keeps it until Calm is over. Without a Calm
	// the history ends with the chaos.
	Chaos, Bound, Calm time.Duration

	// Slow is whether processes are often stopped for minutes and hours.
	Slow bool

	// Office are the times between two acts of a person in the office. None means that there is
	// nobody.
	Office []time.Duration

	// FixedConfig is whether the config never changes during the chaos.
	FixedConfig bool

	// Traits of the vendors.
	Blind      Trait // their lookups never decide
	NoFinder   Trait // they have no lookup at all
	NewID      Trait // a reissue has another ID than its order
	CoversTwin Trait // an order for a name covers its www or apex twin
	SaysTwin   Trait // their description says so, rightly or not
	TellsTerm  Trait // they report when the term ends
	Prepares   Trait // an order has a free preparation
	Predicts   Trait // challenges are known before the order
	Renews     Trait // they have a renewal
	NoDeaths   Trait // orders never fail by themselves

	// RenewKeepsProduct is whether a renewal buys what the old order bought, whatever
	// is asked for.
	RenewKeepsProduct Trait

	// Market makes what replaces the model's own vendors, by choices of the history's
	// tape. It is called in the history's bubble. Nil means none. Except for NoDeaths,
	// the traits apply only to the model's own vendors.
	Market func(*Tape) Market

	// Describe may change a vendor's description of itself. Nil changes nothing.
	Describe func(d *vendors.Description, renewKeepsProduct bool)

	// Observe is called at each charge before it is judged. Nil observes nothing.
	Observe func(Charge)
}

// Base returns the parameters of the reference model: terms and lives of weeks.
func Base() Params {
	return Params{
		Crash: 150, LateStore: time.Minute, Lie: 4 * time.Minute, Land: 90 * time.Second, PaidTimeout: time.Minute,
		LateCheck: 2 * time.Minute, PauseBeforeSend: time.Minute, AbsenceAge: 10 * time.Minute, Skew: time.Hour,
		Limit: 4, Person: 12 * time.Hour, Life: 8 * day, Terms: []int{20, 10, 40}, Margins: []time.Duration{2 * day, 4 * day, day, 30 * day},
		Pauses:  []time.Duration{8 * time.Hour, time.Hour, 2 * day, 20 * time.Minute},
		Ready:   []time.Duration{time.Minute, 10 * time.Minute, 2 * time.Hour, 20 * time.Hour},
		MaxWait: 3 * time.Hour, Chaos: 40 * day, Bound: 6 * day, Calm: 26 * day,
		NoFinder: No, Prepares: No, Predicts: Yes, Renews: No, NoDeaths: No,
	}
}

// Quick returns parameters with shorter terms and lives, so as much happens in less time.
func Quick() Params {
	p := Base()
	p.Life, p.Terms, p.Margins = 2*day, []int{4, 3, 8}, []time.Duration{12 * time.Hour, day, 8 * time.Hour, 30 * day}
	p.Ready = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 5 * time.Hour}
	p.Chaos, p.Bound, p.Calm = 5*day, 4*day, 5*day
	p.Prepares, p.Predicts, p.Renews = Drawn, Drawn, Drawn
	return p
}

// Brief returns parameters of a chaos that is shorter than a day, for histories by the
// thousand. There is no calm after it: only what was paid is judged.
func Brief() Params {
	p := Quick()
	p.Life, p.Terms, p.Margins = 12*time.Hour, []int{1, 2, 1}, []time.Duration{6 * time.Hour, 10 * time.Hour, 3 * time.Hour, 30 * day}
	p.Pauses = []time.Duration{90 * time.Minute, 20 * time.Minute, 5 * time.Hour, 5 * time.Minute}
	p.Chaos, p.Bound, p.Calm = 20*time.Hour, 0, 0
	p.Office = []time.Duration{2 * time.Hour, 5 * time.Hour, time.Minute, 5 * time.Hour}
	return p
}

// Years returns parameters of real terms and lives, as vendors have them.
func Years() Params {
	p := Base()
	p.Life, p.Terms = 199*day, []int{365, 365, 730}
	p.Margins = []time.Duration{30 * day, 15 * day, 60 * day, 400 * day}
	p.Pauses = []time.Duration{8 * time.Hour, 5 * day, 30 * day, 20 * time.Minute}
	p.Chaos, p.Bound, p.Calm = 500*day, 10*day, 400*day
	p.Person, p.Crash = 60*time.Hour, 400
	return p
}

// Kind is a named variant of the world.
type Kind struct {
	Name string
	Params
}

// Kinds returns the kinds of storages, locks and vendors in which a system must keep the
// rules, as variants of base.
func Kinds(base Params) []Kind {
	variant := func(name string, change func(*Params)) Kind {
		p := base
		change(&p)
		return Kind{name, p}
	}
	late := func(p *Params) { p.Visible, p.Settle = 30*time.Second, 35*time.Second }
	return []Kind{
		variant("plain", func(*Params) {}),
		variant("lossy", func(p *Params) { p.Locks = LocksLossy }),
		variant("lockless", func(p *Params) { p.Locks = LocksNone }),
		variant("late", func(p *Params) { p.Locks = LocksNone; late(p) }),
		variant("slow", func(p *Params) { p.Locks, p.Slow = LocksLossy, true; late(p) }),
		variant("crashes", func(p *Params) { p.Locks, p.Slow, p.Crash = LocksNone, true, 40 }),
		variant("blind", func(p *Params) { p.Locks, p.Blind = LocksNone, Yes }),
	}
}
