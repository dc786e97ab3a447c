package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// Action is what a person wants to have done about an order.
type Action struct {
	// About is a name that the order is for, or an ID of it; for adopt, a name of the config.
	About string `json:"about"`

	// Vendor is one vendor's name, or vendor/account, and Entry the ID in the ledger, if several
	// orders could be meant.
	Vendor string `json:"vendor,omitempty"`
	Entry  string `json:"entry,omitempty"`

	// Order is the vendor's ID of the order to use, for adopt and resolve. None says, for resolve,
	// that there is none.
	Order string `json:"order,omitempty"`
	None  bool   `json:"none,omitempty"`

	// Note is what the person says of it, and By who that is. They are kept in the story of the
	// order; for cancel and revoke, the vendor is told the note as the reason, too.
	Note string `json:"note,omitempty"`
	By   string `json:"by,omitempty"`

	// Confirm has it done. Without it, or with DryRun, only the plan is returned.
	Confirm bool `json:"confirm,omitempty"`
	DryRun  bool `json:"dry_run,omitempty"`

	// Revision is that of the plan that the person has seen. Nothing is done if the order has
	// changed since. Zero is any.
	Revision int64 `json:"revision,omitempty"`
}

// Outcome is what an action comes to.
type Outcome struct {
	Plan Plan `json:"plan"`

	// Done is whether it was done, and Result what came of it.
	Done   bool   `json:"done"`
	Result string `json:"result,omitempty"`
}

// RefusedError is the error of an action that is not possible. It says what is.
type RefusedError struct{ Err error }

func (r *RefusedError) Error() string { return r.Err.Error() }

func (r *RefusedError) Unwrap() error { return r.Err }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Errorf(format, args...)} }

// deed is an action that is possible now.
type deed struct {
	plan Plan
	do   func(context.Context) (result string, err error)

	// priced is the order whose successor the plan gives the price of. Nil for none.
	priced *known

	// entered is the entry that is made. Nil for none.
	entered *ledger.Entry
}

// actions are those that Do knows.
var actions = map[string]func(*Desk, context.Context, Action) (deed, error){
	"resolve": (*Desk).resolve,
	"renew":   (*Desk).renew,
	"cancel":  (*Desk).cancel,
	"revoke":  (*Desk).revoke,
	"adopt":   (*Desk).adopt,
}

// IsAction reports whether Do knows the action.
func IsAction(what string) bool { return actions[what] != nil }

// doPatience bounds an action once it has begun. It goes on even if whoever asked no longer waits.
const doPatience = 5 * time.Minute

// Do does what a person asks for: resolve, renew, cancel, revoke or adopt. Without Confirm, or with
// DryRun, it returns the plan, and changes nothing.
func (d *Desk) Do(ctx context.Context, what string, a Action) (Outcome, error) {
	prepare := actions[what]
	if prepare == nil {
		return Outcome{}, refuse("there is no action %q", what)
	}
	if a.About = strings.TrimSpace(a.About); a.About == "" {
		return Outcome{}, refuse("which order? Give a name or the ID of an order")
	}
	got, err := prepare(d, ctx, a)
	if err != nil {
		return Outcome{}, err
	}
	got.plan.Action = what
	out := Outcome{Plan: got.plan}
	if !a.Confirm || a.DryRun {
		if got.priced != nil {
			out.Plan.Price = got.priced.price(ctx)
		}
		return out, nil
	}
	if a.Revision != 0 && a.Revision != got.plan.Revision {
		return out, fmt.Errorf("%w: revision %d was shown, and it has %d", ErrChanged, a.Revision, got.plan.Revision)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doPatience)
	defer cancel()
	if out.Result, err = got.do(ctx); errors.Is(err, ledger.ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrChanged, err)
	}
	out.Done = err == nil
	return out, err
}

// ErrChanged says that an order is no longer what a person has seen. Nothing was done.
var ErrChanged = errors.New("the order has just changed, so nothing was done; look again")

// one finds the one order that is meant, of those in force. If there are several, it is the one
// that asks a person, if that is preferred.
func (d *Desk) one(ctx context.Context, a Action, flagged bool) (known, error) {
	found, err := d.meant(ctx, a, false)
	if err != nil {
		return known{}, err
	}
	inForce := func(k known) bool { return k.entry.State != ledger.Gone && !k.entry.Over(d.now()) }
	all := slices.DeleteFunc(slices.Clone(found), func(k known) bool { return !inForce(k) })
	if asks := slices.DeleteFunc(slices.Clone(all), func(k known) bool { return k.entry.Flag == nil }); flagged && len(asks) == 1 {
		all = asks
	}
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1:
		var which []string
		for _, k := range all {
			which = append(which, fmt.Sprintf("%s at %s/%s (order %s, %s)", k.entry.ID, k.place.Vendor, k.place.Account, Word(k.entry.OrderID), k.entry.State))
		}
		return known{}, refuse("there are several orders for %s; say which with --vendor or --entry: %s", a.About, strings.Join(which, "; "))
	}
	if len(found) == 0 {
		if found, err = d.meant(ctx, a, true); err != nil {
			return known{}, err
		}
	}
	if len(found) == 0 {
		return known{}, d.unknown(ctx, a)
	}
	e := found[0].entry
	if e.Over(d.now()) {
		return known{}, refuse("%w: no order for %s is in force; the term of order %s ended on %s", errNotInForce, a.About, Word(e.OrderID), dayOf(e.Ends))
	}
	return known{}, refuse("%w: no order for %s is in force; order %s was given up, or never was", errNotInForce, a.About, Word(e.OrderID))
}

// errNotInForce says that no order is in force that anything could be done about.
var errNotInForce = errors.New("there is nothing to do")

// meant reads the orders that a person may mean, with past also those that are out of the way. An
// entry that cannot be understood is passed over, unless it is the one meant: a person may have to
// settle an order beside it.
func (d *Desk) meant(ctx context.Context, a Action, past bool) (found []known, err error) {
	err = d.each(ctx, Query{Vendor: a.Vendor, Past: past}, func(k known) error {
		_, damaged := errors.AsType[*ledger.DamagedEntryError](k.err)
		switch {
		case k.err != nil && damaged && k.place.ID != a.Entry && k.place.ID != a.About:
		case k.err != nil:
			return k.err
		case (a.Entry == "" || k.entry.ID == a.Entry) && isAbout(k.entry, a.About):
			found = append(found, k)
		}
		return nil
	})
	return found, err
}

// unknown says that there is no such order, and what there is.
func (d *Desk) unknown(ctx context.Context, a Action) error {
	var accounts []string
	there := false
	err := d.each(ctx, Query{}, func(k known) error {
		account := k.place.Vendor + "/" + k.place.Account
		there = there || a.Vendor == k.place.Vendor || a.Vendor == account
		if !slices.Contains(accounts, account) {
			accounts = append(accounts, account)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case a.Vendor != "" && !there && len(accounts) > 0:
		return &RefusedError{fmt.Errorf("%w: there are no orders of %s, but of %s", ErrUnknown, a.Vendor, strings.Join(accounts, ", "))}
	case len(accounts) == 0:
		return &RefusedError{fmt.Errorf("%q: %w; there are no orders at all. Is it the right storage? --config names it", a.About, ErrUnknown)}
	}
	return &RefusedError{fmt.Errorf("%q: %w, neither as a name nor as the ID of an order; caddy commercial list shows what there is", a.About, ErrUnknown)}
}

// served refuses an order for whose account the config has no issuer.
func (k known) served(d *Desk) error {
	if k.account != nil {
		return nil
	}
	if len(d.Accounts) == 0 {
		return refuse("order %s belongs to the account %s at %s, and there is no config with an issuer for it; name the config with --config",
			Word(k.entry.OrderID), k.place.Account, k.place.Vendor)
	}
	return refuse("order %s belongs to the account %s at %s, and the config has no issuer for it, but for %s",
		Word(k.entry.OrderID), k.place.Account, k.place.Vendor, strings.Join(d.accounts(), ", "))
}

// accounts names those of the config.
func (d *Desk) accounts() []string {
	names := make([]string, 0, len(d.Accounts))
	for _, a := range d.Accounts {
		names = append(names, a.name())
	}
	return names
}

func (a *Account) name() string { return a.About.Name + "/" + a.About.Account }

// A server is mostly at work on an order for a moment, but it can be minutes.
const (
	holdPatience = 10 * time.Second
	holdEvery    = 100 * time.Millisecond
)

// alone calls do while nothing else in this process works on the entry, and then has a server that
// runs here go on with its names.
func (k known) alone(ctx context.Context, do func() (string, error)) (string, error) {
	if k.account == nil || k.account.Hold == nil {
		return do()
	}
	for begun := time.Now(); ; {
		if release, ok := k.account.Hold(k.entry.ID); ok {
			defer k.wake()
			defer release()
			return do()
		}
		if time.Since(begun) > holdPatience || poll.Wait(ctx, holdEvery) != nil {
			return "", refuse("the server is at work on the order for %s; try again in a moment", k.entry.Names[0])
		}
	}
}

// stands returns the entry once all servers must see what was written for a person, if it is still
// there. Until then, one that does not see it may write over it: that is [ledger.ErrConflict].
func (k known) stands(ctx context.Context, written *ledger.Entry) (*ledger.Entry, error) {
	if k.account == nil || k.account.Settle <= 0 {
		return written, nil
	}
	// The last that does not see it is seen as long after that.
	err := poll.Wait(ctx, 2*k.account.Settle)
	var now *ledger.Entry
	if err == nil {
		now, err = k.ledger().Load(ctx, written.ID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is not there any more", ledger.ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("whether a server has written over it could not be seen; look again: %w", err)
	}
	decided := written.Story[len(written.Story)-1]
	for _, event := range slices.Backward(written.Story) {
		if event.What == ledger.Decided {
			decided = event
			break
		}
	}
	if !slices.Contains(now.Story, decided) {
		return nil, fmt.Errorf("%w: a server was at work on the order at that very moment", ledger.ErrConflict)
	}
	return now, nil
}

// wake has a server that runs here go on with the names of the order.
func (k known) wake() {
	if k.account == nil || k.account.Wake == nil {
		return
	}
	for _, name := range slices.Concat(namesOf(k.entry), k.entry.Maybe) {
		if k.account.Manages(name) {
			k.account.Wake(name)
		}
	}
}

// goesOn says when a server goes on with an order that was changed.
func (k known) goesOn() string {
	if k.account != nil && k.account.Wake != nil {
		return "at once"
	}
	return "when Caddy starts; one that runs elsewhere notices within the time of watch (1h by default, 12h if off), or at once after caddy reload --force"
}

// words are what the story of an order tells of a decision.
func (a Action) words(what string) string {
	text := "caddy commercial " + what
	if a.By != "" {
		text += ", by " + a.By
	}
	if a.Note != "" {
		text += ": " + a.Note
	}
	return Word(text)
}
