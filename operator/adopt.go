package operator

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// adopt enters an order that was bought elsewhere for a name of the config, as the option order
// does, without a change of the config.
func (d *Desk) adopt(ctx context.Context, a Action) (deed, error) {
	id := strings.TrimSpace(a.Order)
	if id == "" {
		return deed{}, refuse("which order? Give the vendor's ID of it with --order")
	}
	name := strings.ToLower(a.About)
	account, err := d.buyer(name, a.Vendor)
	if err == nil {
		_, err = account.free(ctx, id, []string{name}) // before the vendor is asked
	}
	if err != nil {
		return deed{}, err
	}
	got, err := d.adoptFor(ctx, account, name, id, a.words("adopt"))
	enter := got.do
	got.do = func(ctx context.Context) (string, error) {
		said, err := enter(ctx)
		if err == nil {
			said = strings.Join(append([]string{said}, account.meanwhile(ctx, got.entered)...), "; ")
		}
		return said, err
	}
	return got, err
}

// buyer is the one account that the config has for a name.
func (d *Desk) buyer(name, vendor string) (*Account, error) {
	var list []*Account
	for i := range d.Accounts {
		if account := &d.Accounts[i]; account.Manages(name) && account.is(vendor) {
			list = append(list, account)
		}
	}
	if len(list) == 1 {
		return list[0], nil
	}
	if len(list) > 1 {
		var which []string
		for _, account := range list {
			which = append(which, "--vendor "+account.name())
		}
		return nil, refuse("the config has several commercial issuers for %s; say which account the order belongs to: %s", name, strings.Join(which, "; "))
	}
	if len(d.Accounts) == 0 {
		return nil, refuse("there is no config with a commercial issuer; name it with --config")
	}
	return nil, refuse("the config has no site %s with an issuer of %s; its commercial issuers are of %s", name, cmp.Or(vendor, "any vendor"), strings.Join(d.accounts(), ", "))
}

// is reports whether the account is the one of a vendor, or vendor/account; an empty one is any.
func (a *Account) is(vendor string) bool {
	return vendor == "" || vendor == a.About.Name || vendor == a.name()
}

// adoptFor plans to adopt an order for a name of the account. The words are for the order's story.
func (d *Desk) adoptFor(ctx context.Context, account *Account, name, id, words string) (deed, error) {
	about := account.About
	order, err := account.Vendor.Status(ctx, id)
	switch {
	case errors.Is(err, vendors.ErrNotFound):
		return deed{}, refuse("%s does not know order %s; is the ID right, and does the order belong to this account? %w", about.Name, id, err)
	case err != nil:
		return deed{}, fmt.Errorf("asking %s for order %s: %w", about.Name, id, err)
	case order.Status.Ended():
		return deed{}, refuse("order %s at %s cannot be adopted: it is %s", id, about.Name, order.Describe())
	case !order.TermEnds.IsZero() && !d.now().Before(order.TermEnds):
		return deed{}, refuse("order %s at %s cannot be adopted: its term ended on %s", id, about.Name, dayOf(order.TermEnds))
	}
	order.ID = id
	names, known := account.namesToAdopt(order, name)
	if !slices.Contains(known, name) && len(known) > 0 {
		return deed{}, refuse("order %s at %s is for %s, not for %s", id, about.Name, strings.Join(known, ", "), name)
	}
	entry, err := account.free(ctx, id, append(slices.Clone(names), name))
	if err != nil {
		return deed{}, err
	}
	wanted := append(known, name)
	if account.Maybe != nil {
		wanted = append(wanted, account.Maybe(names)...)
	}
	e := account.Ledger.Adopt(order, names, wanted, account.Order(name))
	e.ID = entry
	plan := Plan{
		Vendor: about.Name, Account: about.Account, OrderID: id, Names: names, Entry: e.ID, Said: order.Describe(),
		Does: "the order is entered into the ledger; nothing is bought, and nothing is done at the vendor", Then: []string{},
	}
	plan.Then = append(plan.Then, "if its certificate is for a key that is not here, it is reissued once, free of charge, "+account.of(e).goesOn(),
		fmt.Sprintf("no order is placed for its names before %s; its term ends on %s", dayOf(e.Ends.Add(-e.Margin(account.Margin(e)))), dayOf(e.Ends)))
	return deed{plan: plan, entered: e, do: func(ctx context.Context) (string, error) { return account.enter(ctx, e, words) }}, nil
}

// of is an entry of the account.
func (a *Account) of(e *ledger.Entry) known { return known{account: a, entry: e} }

// namesToAdopt are those that an order was placed for, as the vendor tells, and those that it is known
// to be for, the ones of its certificate among them. Where the vendor does not tell, it was placed for
// those of the certificate, the common name first, but for the twin with or without www that a CA adds
// by itself, unless the config has both on one order.
func (a *Account) namesToAdopt(order vendors.Order, name string) (names, known []string) {
	for _, n := range order.Names {
		names = append(names, strings.ToLower(n.Name))
	}
	certified := certifiedNames(order)
	known = slices.Clone(names)
	for _, n := range certified {
		if !slices.Contains(known, n) {
			known = append(known, n)
		}
	}
	switch {
	case len(names) > 0:
		return names, known
	case len(certified) == 0:
		return []string{name}, nil
	case len(certified) == 2 && a.About.CoversTwin && strings.TrimPrefix(certified[0], "www.") == strings.TrimPrefix(certified[1], "www.") && !a.share(certified...):
		return certified[:1], known
	}
	return certified, known
}

// share reports whether the config has the names on one order.
func (a *Account) share(names ...string) bool {
	return a.Rules != nil && !slices.ContainsFunc(names, func(name string) bool {
		return !slices.Contains(a.Rules(names[0]).Group, name)
	})
}

// certifiedNames are those of the certificate of an order, the common name first.
func certifiedNames(order vendors.Order) (names []string) {
	for _, der := range order.Certificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil || cert.IsCA {
			continue
		}
		for _, n := range cert.DNSNames {
			names = append(names, strings.ToLower(n))
		}
		if i := slices.Index(names, strings.ToLower(cert.Subject.CommonName)); i > 0 {
			names = slices.Insert(slices.Delete(names, i, i+1), 0, strings.ToLower(cert.Subject.CommonName))
		}
		break
	}
	return names
}

// free refuses to adopt an order if one in force is in its way. It returns the ID of its entry. That
// of an order that was given up stays as it is: a server that remembers it for other names would not
// notice that it is for these.
func (a *Account) free(ctx context.Context, id string, names []string) (entry string, err error) {
	if err := a.Ledger.Refresh(ctx); err != nil {
		return "", err
	}
	about, err := a.Ledger.About(ctx, names...)
	if err != nil {
		return "", err
	}
	now := a.Ledger.Time()
	about = slices.DeleteFunc(about, func(e *ledger.Entry) bool { return e.State == ledger.Gone || e.Over(now) })
	for _, e := range about {
		if e.OrderID == id || e.RootID == id {
			return "", refuse("order %s is in the ledger already (entry %s, %s)", id, e.ID, e.State)
		}
	}
	for _, e := range about {
		for _, name := range names {
			if e.Blocks(name, a.Margin(e), now) {
				return "", refuse("order %s of the ledger is for %s until %s (entry %s, %s); to use the other one in its place: caddy commercial resolve %s --entry %s --order %s",
					cmp.Or(e.OrderID, "with reference "+e.Attempt.Reference), name, dayOf(e.Ends), e.ID, e.State, name, e.ID, id)
			}
		}
	}
	if e, err := a.under(ctx, id); err != nil {
		return "", err
	} else if e != nil {
		return "", refuse("order %s is in the ledger already (entry %s, %s), for %s", id, e.ID, e.State, strings.Join(e.Names, ", "))
	}
	for n := 1; ; n++ {
		entry = ledger.AdoptedID(id, n)
		switch before, err := a.Ledger.Load(ctx, entry); {
		case errors.Is(err, fs.ErrNotExist):
			return entry, nil
		case err != nil:
			return "", err
		case before.State != ledger.Gone:
			return "", refuse("order %s is in the ledger already (entry %s, %s), for %s", id, before.ID, before.State, strings.Join(before.Names, ", "))
		}
	}
}

// under is the entry in force that goes on with an order, for whatever names; nil if there is none.
func (a *Account) under(ctx context.Context, id string) (*ledger.Entry, error) {
	now := a.Ledger.Time()
	entries := a.Ledger.Memory.Pending()
	for _, certified := range a.Ledger.Memory.Ordered(now, []string{id}) {
		e, err := a.Ledger.Load(ctx, certified)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	for _, e := range entries {
		if e.State != ledger.Gone && !e.Over(now) && (e.OrderID == id || e.RootID == id) {
			return e, nil
		}
	}
	return nil, nil
}

// enter stores the entry of an adopted order.
func (a *Account) enter(ctx context.Context, e *ledger.Entry, words string) (string, error) {
	release, ok := a.Ledger.Memory.Claim(e.Names)
	if !ok {
		return "", refuse("the server is placing an order for %s at this very moment; look again", strings.Join(e.Names, ", "))
	}
	defer release()
	var err error
	if e.ID, err = a.free(ctx, e.OrderID, e.Names); err != nil {
		return "", err
	}
	e.Decide(a.Ledger.Time(), words)
	if err := a.Ledger.Create(ctx, e); err != nil {
		return "", err
	}
	a.of(e).wake()
	return fmt.Sprintf("%s: order %s is entered, as %s", strings.Join(e.Names, ", "), e.OrderID, e.ID), nil
}

// meanwhile tells what a server has ordered for the names of entries while they were made. A server
// looks into the ledger once more before it pays, and may not see an entry that was stored just
// then; but its own entry is seen here.
func (a *Account) meanwhile(ctx context.Context, entered ...*ledger.Entry) (warnings []string) {
	err := poll.Wait(ctx, a.Settle)
	if err == nil {
		err = a.Ledger.Refresh(ctx)
	}
	if err != nil {
		return []string{fmt.Sprintf("whether a server has ordered meanwhile could not be seen: %v", err)}
	}
	now := a.Ledger.Time()
	for _, e := range entered {
		about, err := a.Ledger.About(ctx, e.Names...)
		if err != nil {
			return append(warnings, err.Error())
		}
		for _, other := range about {
			if other.ID != e.ID && slices.ContainsFunc(e.Names, func(name string) bool { return other.Blocks(name, a.Margin(other), now) }) {
				warnings = append(warnings, fmt.Sprintf("a server has ordered for %s meanwhile (entry %s, %s); if it is paid for, there are two orders",
					strings.Join(other.Names, ", "), other.ID, other.State))
			}
		}
	}
	return warnings
}
