// Package operator tells people what the ledgers hold: what was bought, what is pending and why,
// what comes next and when it will cost. And it does what they decide: it renews, cancels, revokes,
// adopts and resolves orders, and compares the ledgers with the vendors' lists. Commands, the admin
// API and the status page show and do the same, whether a server runs or not.
package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/errgroup"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Account is an account at a vendor that a config buys from.
type Account struct {
	// Ledger is the account's.
	Ledger *ledger.Ledger

	// Vendor sells, and About is its description.
	Vendor vendors.Vendor
	About  vendors.Description

	// Order is what the config orders for a name.
	Order func(name string) vendors.OrderConfig

	// Margin is how much of an order's term may be given up for the next one.
	Margin func(*ledger.Entry) time.Duration

	// Settle is how late the storage may show what another process has written.
	Settle time.Duration

	// WindowRatio is the last part of a certificate's life, in which it is renewed. Zero means
	// certmagic's default.
	WindowRatio float64

	// Manages reports whether the config needs a certificate for the name from this account.
	Manages func(name string) bool

	// Names are those of the config that need a certificate from this account, and Rules are the
	// config's for a name. Maybe are the names that the CA may add to an order by itself. Without
	// Rules, each name has an order of its own.
	Names func() []string
	Rules func(name string) Rules
	Maybe func(names []string) []string

	// Stored reports whether the name has a certificate of the account in the storage. Nil if that
	// is not known.
	Stored func(ctx context.Context, name string) bool

	// SpendOrders is how many orders may be placed within SpendPer. Zero means any number.
	SpendOrders int
	SpendPer    time.Duration

	// OnDemand is whether handshakes may bring up names that are not known yet, for which orders
	// are then placed.
	OnDemand bool

	// Wake has a running server go on with a name at once. Nil if none runs here.
	Wake func(name string)

	// Hold makes the caller the only one in this process that works on the entry with the ID, until
	// release. Nil if no server runs here.
	Hold func(id string) (release func(), ok bool)

	// Doing tells how a running server stands with a name, and with an order for it; e is nil if
	// there is none. Nil if no server runs here.
	Doing func(name string, e *ledger.Entry) Doing

	// Unordered are the names that a running server has no order for, sorted. Nil if none runs
	// here.
	Unordered func() []string
}

// Rules are what a config says of orders for a name.
type Rules struct {
	// Allowed is whether there may be any.
	Allowed bool

	// Group are the names that share an order, the name among them.
	Group []string

	// Adopted is whether an order is given for the name, so that no other one is placed.
	Adopted bool

	// ReplaceEnded is whether an order may be bought again that the vendor has ended.
	ReplaceEnded bool
}

// Doing is what a server does about an order.
type Doing struct {
	// Said is what the vendor said last, at the time At.
	Said string    `json:"said,omitempty"`
	At   time.Time `json:"at,omitzero"`

	// Waits is what the name waits for, or what went wrong last, and Next is when it goes on.
	Waits string    `json:"waits,omitempty"`
	Next  time.Time `json:"next,omitzero"`
}

// Desk is where people look at orders: all accounts of a config, and what else is in its storages.
type Desk struct {
	// Storages are those of the config, each once.
	Storages []certmagic.Storage

	Accounts []Account

	// Now is the wall clock. Nil means that of the system.
	Now func() time.Time
}

// NewDesk returns a desk for accounts. Those that are the same become one, which manages a name if
// any of them does.
func NewDesk(accounts []Account) *Desk {
	d := new(Desk)
	for _, a := range accounts {
		if !slices.ContainsFunc(d.Storages, func(s certmagic.Storage) bool {
			return ledger.StorageIdentity(s) == ledger.StorageIdentity(a.Ledger.Storage)
		}) {
			d.Storages = append(d.Storages, a.Ledger.Storage)
		}
		if same := d.find(a.Ledger.Storage, a.Ledger.Prefix); same != nil {
			same.join(a)
			continue
		}
		d.Accounts = append(d.Accounts, a)
	}
	return d
}

// join adds to an account what another issuer of the config has from it.
func (a *Account) join(other Account) {
	first := *a
	a.Manages = func(name string) bool { return first.Manages(name) || other.Manages(name) }
	a.Order = func(name string) vendors.OrderConfig {
		if !first.Manages(name) && other.Manages(name) {
			return other.Order(name)
		}
		return first.Order(name)
	}
	a.Margin = func(e *ledger.Entry) time.Duration {
		if !slices.ContainsFunc(e.Names, first.Manages) && slices.ContainsFunc(e.Names, other.Manages) {
			return other.Margin(e)
		}
		return first.Margin(e)
	}
	if first.Rules != nil && other.Rules != nil {
		a.Rules = func(name string) Rules {
			if !first.Manages(name) && other.Manages(name) {
				return other.Rules(name)
			}
			return first.Rules(name)
		}
	}
	if first.Names != nil && other.Names != nil {
		a.Names = func() []string {
			return slices.Compact(slices.Sorted(slices.Values(slices.Concat(first.Names(), other.Names()))))
		}
	}
	a.OnDemand = a.OnDemand || other.OnDemand
}

func (d *Desk) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// find is the account whose ledger is at the prefix; nil if no config has it any more.
func (d *Desk) find(storage certmagic.Storage, prefix string) *Account {
	for i, a := range d.Accounts {
		if a.Ledger.Prefix == prefix && ledger.StorageIdentity(a.Ledger.Storage) == ledger.StorageIdentity(storage) {
			return &d.Accounts[i]
		}
	}
	return nil
}

// Query is which orders are wanted. The zero value is all that are not over.
type Query struct {
	// State is one of those of the ledger, StateOver, StateNone for names without an order, or
	// StateFlagged for the orders about which a person is asked.
	State string

	// Vendor is one vendor's name, or vendor/account.
	Vendor string

	// Expiring is the time within which the certificate ends. Zero is any.
	Expiring time.Duration

	// About is a name that the order speaks for, or an ID of it.
	About string

	// Past is whether those that are over are wanted, too.
	Past bool

	// After is the Cursor of the last row of the page before, and Limit how many rows are wanted
	// at most; zero is all.
	After string
	Limit int
}

// The states that are asked for beside those of the ledger.
const (
	StateOver    = "over"
	StateNone    = "none"
	StateFlagged = "flagged"
)

// Check refuses a query that nothing could match.
func (q *Query) Check() error {
	states := []string{string(ledger.Asked), string(ledger.Open), string(ledger.Issued), string(ledger.Gone), StateOver, StateNone, StateFlagged}
	switch {
	case q.State != "" && !slices.Contains(states, q.State):
		return fmt.Errorf("state: must be one of %s, got %q", strings.Join(states, ", "), q.State)
	case q.Expiring < 0:
		return fmt.Errorf("expiring: must not be negative, got %s", q.Expiring)
	case q.Limit < 0:
		return fmt.Errorf("limit: must not be negative, got %d", q.Limit)
	}
	return nil
}

// known is an entry, and whose it is. Either entry or err is nil.
type known struct {
	place   ledger.Place
	entry   *ledger.Entry
	err     error
	account *Account
	storage certmagic.Storage
	cursor  string
}

// ledger is where the entry is, whether or not the config has its account.
func (k known) ledger() *ledger.Ledger {
	if k.account != nil {
		return k.account.Ledger
	}
	return &ledger.Ledger{Storage: k.storage, Prefix: ledger.Prefix(k.place.Vendor, k.place.Account), Memory: new(ledger.Memory)}
}

// cursor is where a listing is. Listings go through one storage after the other.
func cursor(storage int, p ledger.Place) string { return fmt.Sprintf("%03d/%s", storage, p.Key()) }

const (
	pageSize = 256 // entries that are in memory at a time
	readers  = 16  // that are read at a time
)

// each reads what a query may be about, one page after the other.
func (d *Desk) each(ctx context.Context, q Query, yield func(known) error) error {
	vendor, account, both := strings.Cut(q.Vendor, "/")
	for number, storage := range d.Storages {
		places, err := ledger.ListPlaces(ctx, storage, func(p ledger.Place) bool {
			return (!p.Past || q.Past || q.State == StateOver) && (q.After == "" || cursor(number, p) > q.After) &&
				(vendor == "" || p.Vendor == vendor) && (!both || p.Account == account)
		})
		if err != nil {
			return err
		}
		if one, ok := places.Find(q.About); ok {
			places = one // the others need not be read
		}
		for page := range places.Pages(pageSize) {
			read := make([]known, len(page))
			var all errgroup.Group
			all.SetLimit(readers)
			for i, p := range page {
				all.Go(func() error {
					e, err := p.Read(ctx, storage)
					read[i] = known{p, e, err, d.find(storage, ledger.Prefix(p.Vendor, p.Account)), storage, cursor(number, p)}
					return nil
				})
			}
			_ = all.Wait() // each carries its own
			for _, k := range read {
				if errors.Is(k.err, fs.ErrNotExist) {
					continue // it has just been moved or deleted
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := yield(k); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

// List tells of the orders that a query wants, in the order of storage, vendor, account and time.
// An entry that cannot be read is a row with nothing but its problem.
func (d *Desk) List(ctx context.Context, q Query, yield func(Row) error) error {
	return d.wanted(ctx, q, func(row Row, _ func() Story) error { return yield(row) })
}

// wanted tells of what a query wants, and the story if that is asked for.
func (d *Desk) wanted(ctx context.Context, q Query, yield func(row Row, story func() Story) error) error {
	if err := q.Check(); err != nil {
		return err
	}
	now, n := d.now(), 0
	tell := func(row Row, story func() Story) error {
		if err := yield(row, story); err != nil {
			return err
		}
		if n++; n == q.Limit {
			return errEnough
		}
		return nil
	}
	err := d.each(ctx, q, func(k known) error {
		row := k.row(now)
		if !q.wants(k, row, now) {
			return nil
		}
		return tell(row, func() Story { return k.story(row, now) })
	})
	if err == nil {
		err = d.unordered(q, tell)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// unordered tells of the names that a query wants and that have no order. They come last.
func (d *Desk) unordered(q Query, tell func(Row, func() Story) error) error {
	if q.State != "" && q.State != StateNone || q.Expiring > 0 {
		return nil
	}
	vendor, account, both := strings.Cut(q.Vendor, "/")
	for i, a := range d.Accounts {
		if a.Unordered == nil || vendor != "" && a.About.Name != vendor || both && a.About.Account != account {
			continue
		}
		for _, name := range a.Unordered() {
			row := d.Accounts[i].unordered(name)
			row.Cursor = fmt.Sprintf("name/%03d/%s", i, name) // after all numbers
			if row.Cursor <= q.After || q.About != "" && q.About != name {
				continue
			}
			if err := tell(row, func() Story { return d.Accounts[i].story(row) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// unordered is the row of a name that has no order.
func (a *Account) unordered(name string) Row {
	row := Row{Name: name, Names: []string{name}, Vendor: a.About.Name, Account: a.About.Account, State: StateNone}
	if a.Doing != nil {
		row.Problem = a.Doing(name, nil).Waits
	}
	return row
}

func (q Query) wants(k known, row Row, now time.Time) bool {
	if k.err != nil {
		return q.State == "" && q.Expiring == 0 && (q.About == "" || q.About == k.place.ID)
	}
	switch q.State {
	case "":
		if row.State == StateOver && !q.Past {
			return false
		}
	case StateFlagged:
		if row.Flag == "" {
			return false
		}
	default:
		if row.State != q.State {
			return false
		}
	}
	if q.Expiring > 0 && (row.CertificateNotAfter.IsZero() || row.CertificateNotAfter.After(now.Add(q.Expiring))) {
		return false
	}
	return q.About == "" || isAbout(k.entry, q.About)
}

// isAbout reports whether a person who says a word may mean the entry: by a name of it, or one of
// its IDs.
func isAbout(e *ledger.Entry, word string) bool {
	return slices.Contains([]string{e.ID, e.OrderID, e.RootID, e.CAOrderID, e.Attempt.Reference}, word) ||
		e.Speaks(strings.ToLower(word)) || e.Certificate != nil && strings.EqualFold(e.Certificate.Serial, word)
}

// ParseQuery reads a query from the parameters of a URL: state, vendor, expiring, about, past,
// after and limit.
func ParseQuery(values url.Values) (q Query, err error) {
	q = Query{State: values.Get("state"), Vendor: values.Get("vendor"), About: values.Get("about"), After: values.Get("after")}
	for name := range values {
		if !slices.Contains([]string{"state", "vendor", "expiring", "about", "past", "after", "limit"}, name) {
			return q, fmt.Errorf("there is no parameter %q", name)
		}
	}
	if text := values.Get("expiring"); text != "" {
		if q.Expiring, err = caddy.ParseDuration(text); err != nil {
			return q, fmt.Errorf("expiring: %w", err)
		}
	}
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil {
			return q, fmt.Errorf("limit: must be a number, got %q", text)
		}
	}
	if text := values.Get("past"); text != "" {
		if q.Past, err = strconv.ParseBool(text); err != nil {
			return q, fmt.Errorf("past: must be true or false, got %q", text)
		}
	}
	return q, q.Check()
}

// Values are the parameters that ParseQuery reads.
func (q Query) Values() url.Values {
	values := make(url.Values)
	set := func(name, text string) {
		if text != "" {
			values.Set(name, text)
		}
	}
	set("state", q.State)
	set("vendor", q.Vendor)
	set("about", q.About)
	set("after", q.After)
	if q.Expiring > 0 {
		set("expiring", q.Expiring.String())
	}
	if q.Limit > 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	if q.Past {
		set("past", "true")
	}
	return values
}

// About is what the root of the admin API answers.
type About struct {
	Issuers int `json:"issuers"` // commercial ones of the config
}
