package issuer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// takeover is the request to go on with a certificate that was bought elsewhere.
type takeover struct {
	*purchased

	// names are those of the certificate that the configuration has from this issuer.
	names []string

	// orderID is the vendor's ID of its order. If it is empty, the order is looked for, unless
	// noOrder says that there is none to be used.
	orderID string
	noOrder bool

	// ends is the end of the paid term, for vendors that do not tell it.
	ends time.Time

	// force replaces stored certificates that last longer.
	force bool
}

// taking is what a takeover comes to. Nothing is changed yet.
type taking struct {
	takeover
	entry *ledger.Entry // to be made; nil for none
	known *ledger.Entry // the one there is already
	store []string      // the names that it is to be stored for
}

// say tells a person something, in one line.
type say func(format string, args ...any)

// examine finds out what a takeover comes to. It changes nothing, here and at the vendor.
func (f *flow) examine(ctx context.Context, t takeover, say say) (*taking, error) {
	leaf := t.chain.leaf()
	about, err := f.aboutNow(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := f.orderOption(&t); err != nil {
		return nil, err
	}
	plan := &taking{takeover: t}
	if plan.known, err = f.entered(about, t, say); err != nil {
		return nil, err
	}
	if plan.known == nil {
		if err := f.unheld(about, t); err != nil {
			return nil, err
		}
		if plan.entry, err = f.entryFor(ctx, about, t, say); err != nil {
			return nil, err
		}
	}
	if plan.store, err = f.toStore(ctx, t, say); err != nil {
		return nil, err
	}
	if plan.entry == nil && plan.known == nil && !t.noOrder && f.site.Due(leaf) {
		return nil, fmt.Errorf("the certificate for %s in %s is due for renewal, so Caddy would place a new order at once, "+
			"as the one that it is of is not known; give its ID with --order, or --no-order if a new one is wanted", namesIn(leaf), t.file)
	}
	return plan, nil
}

// aboutNow returns the entries for the names of the certificate, as the storage has them now.
func (f *flow) aboutNow(ctx context.Context, t takeover) ([]*ledger.Entry, error) {
	if err := f.ledger.Refresh(ctx); err != nil {
		return nil, err
	}
	return f.ledger.About(ctx, append(lowered(t.chain.leaf().DNSNames), t.names...)...)
}

// orderOption takes the order from the option order of the configuration, and refuses any other,
// or none, for a name that has that option.
func (f *flow) orderOption(t *takeover) error {
	for _, name := range t.names {
		a, ok := f.adoptedFor(name)
		switch {
		case !ok:
		case t.orderID == "" && !t.noOrder:
			t.orderID = a.ID
		case t.orderID != a.ID:
			return fmt.Errorf("the option order of the config gives order %s for %s; import the certificate of that one, or change the option", a.ID, name)
		}
	}
	return nil
}

// entered returns the entry of the ledger that has given this very certificate, nil if there is
// none.
func (f *flow) entered(about []*ledger.Entry, t takeover, say say) (*ledger.Entry, error) {
	leaf := t.chain.leaf()
	key, err := keyID(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	for _, e := range about {
		c := e.Certificate
		if c == nil || c.Serial != serialOf(leaf) || c.Key != key || e.State == ledger.Gone || e.Over(f.ledger.Time()) {
			continue
		}
		switch {
		case t.orderID != "" && t.orderID != e.OrderID && t.orderID != e.RootID:
			return nil, fmt.Errorf("the ledger has this certificate as that of order %s (entry %s), not of order %s", e.OrderID, e.ID, t.orderID)
		case e.State != ledger.Issued || c.Lost:
			return nil, fmt.Errorf("order %s (entry %s), which has given this certificate, is being reissued; there is nothing to import", e.OrderID, e.ID)
		}
		say("order %s is in the ledger with this certificate (entry %s)", e.OrderID, e.ID)
		return e, nil
	}
	return nil, nil
}

// unheld refuses a takeover for names that an order of the ledger is for: that order's
// certificate would take the place of the imported one, or there would be two orders where
// one is enough.
func (f *flow) unheld(about []*ledger.Entry, t takeover) error {
	now := f.ledger.Time()
	for _, e := range about {
		if t.orderID != "" && (e.OrderID == t.orderID || e.RootID == t.orderID) {
			return inLedger(e, now)
		}
		for _, name := range t.names {
			switch {
			case e.Blocks(name, f.margin(e), now):
				return fmt.Errorf("order %s of the ledger is for %s until %s (entry %s, %s), and its certificates are used for it; nothing is imported. "+
					"To use the imported one, give that order up, though it is paid for: caddy commercial resolve %s --entry %s --none",
					cmp.Or(e.OrderID, "with reference "+e.Attempt.Reference), name, e.Ends.UTC().Format(time.DateOnly), e.ID, e.State, name, e.ID)
			case t.noOrder && e.State != ledger.Gone && !e.Over(now) && e.Speaks(name):
				return fmt.Errorf("order %s of the ledger is for %s until %s (entry %s), and its certificate would take the place of the imported one; "+
					"import it with its order: --order", e.OrderID, name, e.Ends.UTC().Format(time.DateOnly), e.ID)
			}
		}
	}
	return nil
}

// inLedger is the error for an order that has an entry already.
func inLedger(e *ledger.Entry, now time.Time) error {
	what := "Caddy goes on with it by itself"
	switch {
	case e.State == ledger.Gone:
		what = "it was given up, and no certificate of it is used"
	case e.Over(now):
		what = "its term ended on " + e.Ends.UTC().Format(time.DateOnly)
	case e.Flag != nil:
		what = "it waits for a decision: " + e.Flag.Reason
	case e.Certificate != nil:
		what = fmt.Sprintf("its certificate there has serial number %s and lasts until %s; Caddy gets it by itself", e.Certificate.Serial, e.Certificate.NotAfter.Format(time.DateOnly))
	}
	return fmt.Errorf("order %s is in the ledger (entry %s, %s), and an order has one entry only; nothing is imported: %s", e.OrderID, e.ID, e.State, what)
}

// entryFor finds the order of the certificate at the vendor, and makes its entry, which is not
// stored yet. It is nil if no order is known.
func (f *flow) entryFor(ctx context.Context, about []*ledger.Entry, t takeover, say say) (*ledger.Entry, error) {
	order, err := f.orderOf(ctx, t, say)
	if err != nil {
		return nil, err
	}
	if order == nil {
		t.noOrder = true
		return nil, f.unheld(about, t)
	}
	t.orderID = order.ID
	if err := f.unheld(about, t); err != nil {
		return nil, err
	}
	id := ledger.AdoptedID(order.ID, 1)
	switch have, err := f.ledger.Load(ctx, id); {
	case err == nil:
		return nil, inLedger(have, f.ledger.Time())
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	ends, err := f.endOfTerm(*order, t)
	if err != nil {
		return nil, err
	}
	leaf := t.chain.leaf()
	key, err := keyID(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	now, reference := f.ledger.Time(), importReference(order.ID, leaf)
	say("order %s at %s: %s, with this certificate, paid until %s", order.ID, f.about.Name, order.Describe(), ends.Format(time.DateOnly))
	return &ledger.Entry{
		ID: id, Names: f.namesToReissue(*order, leaf), Covered: lowered(leaf.DNSNames), State: ledger.Issued, Adopted: true,
		Product: f.order.Product, Term: f.order.Term, Method: f.order.Method, Paid: now, Ends: ends,
		OrderID: order.ID, RootID: order.ID, CAOrderID: order.CAOrderID,
		Attempt: ledger.Attempt{Kind: ledger.KindAdoption, Reference: reference, Started: now},
		Certificate: &ledger.Certificate{
			Serial: serialOf(leaf), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), Key: key, Reference: reference,
		},
		Issued: 1,
	}, nil
}

// importReference returns the reference of an imported certificate, in place of that of a request.
// It is the same when an import is run again, so that the key kept under it is not left behind.
func importReference(orderID string, leaf *x509.Certificate) string {
	sum := sha256.Sum256([]byte("import " + orderID + " " + serialOf(leaf)))
	return "cc" + hex.EncodeToString(sum[:12])
}

// endOfTerm is the end of what was paid for: the vendor's word, or else a person's. It is never
// guessed, because what is taken for over is bought again.
func (f *flow) endOfTerm(order vendors.Order, t takeover) (time.Time, error) {
	const apart = 48 * time.Hour // for dates without a zone
	ends, leaf := order.TermEnds.UTC(), t.chain.leaf()
	switch {
	case order.TermEnds.IsZero() && t.ends.IsZero():
		return ends, fmt.Errorf("%s does not show until when order %s is paid, and without that, another one could be bought too early; "+
			"look at %s, and give the day: --ends 2027-01-31", f.about.Name, order.ID, f.about.Portal)
	case order.TermEnds.IsZero() && t.ends.Add(apart).Before(leaf.NotAfter):
		return ends, fmt.Errorf("--ends %s is before the end of the certificate, %s; a term does not end before its certificates. Look at %s",
			t.ends.Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly), f.about.Portal)
	case order.TermEnds.IsZero():
		ends = t.ends
	case !t.ends.IsZero() && ends.Sub(t.ends).Abs() > apart:
		return ends, fmt.Errorf("%s tells that order %s is paid until %s, not %s; leave --ends out",
			f.about.Name, order.ID, ends.Format(time.DateOnly), t.ends.Format(time.DateOnly))
	}
	if !f.ledger.Time().Before(ends) {
		return ends, fmt.Errorf("what was paid for with order %s has ended on %s; to serve its certificate until it is due, and to order anew then, give --no-order",
			order.ID, ends.Format(time.DateOnly))
	}
	return ends, nil
}

// namesToReissue are the names that the order was paid for, the common name first: what the
// vendor tells, or else those of the certificate. The twin with or without www that a CA adds by
// itself is not among them, unless the configuration has both on one order: it might lead elsewhere,
// and vendors refuse what was not ordered.
func (f *flow) namesToReissue(order vendors.Order, leaf *x509.Certificate) []string {
	var names []string
	for _, n := range order.Names {
		names = append(names, dcv.NormalizeHost(n.Name))
	}
	first := firstName(leaf)
	if len(names) == 0 {
		names = lowered(leaf.DNSNames)
		if twin := dcv.Twin(first); f.about.CoversTwin && len(names) == 2 && slices.Contains(names, twin) && !slices.Contains(f.group(first), twin) {
			names = []string{first}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if i := slices.Index(names, first); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, first)
	}
	return names
}

// maxCandidates is how many orders are looked at one by one.
const maxCandidates = 20

// orderOf asks the vendor for the order that has given the certificate. Nil means that none is
// known. Nothing changes at the vendor.
func (f *flow) orderOf(ctx context.Context, t takeover, say say) (*vendors.Order, error) {
	leaf := t.chain.leaf()
	if t.noOrder {
		return nil, nil
	}
	if t.orderID != "" {
		say("asking %s for order %s; this changes nothing there", f.about.Name, t.orderID)
		return f.namedOrder(ctx, t)
	}
	lister, ok := f.vendor.(vendors.OrderLister)
	if !ok {
		say("%s has no list of orders that the order of this certificate could be found in", f.about.Name)
		return nil, nil
	}
	name := firstName(leaf)
	if names := lowered(leaf.DNSNames); !slices.Contains(names, name) {
		name = names[0] // the common name may be anything
	}
	say("asking %s for its orders for %s, and for each that may have given this certificate; this changes nothing there", f.about.Name, name)
	ids, err := lister.OrdersFor(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("looking for the order of the certificate at %s: %w; give its ID with --order, or --no-order to go without", f.about.Name, err)
	}
	if len(ids) > maxCandidates {
		say("%s has %d orders for %s, of which the newest %d are looked at", f.about.Name, len(ids), name, maxCandidates)
		ids = ids[:maxCandidates]
	}
	for _, id := range ids {
		order, err := f.vendor.Status(ctx, id)
		if err != nil && !errors.Is(err, vendors.ErrNotFound) {
			return nil, fmt.Errorf("asking for order %s at %s: %w; give the ID of the certificate's order with --order, or --no-order to go without", id, f.about.Name, err)
		}
		if err != nil || !slices.ContainsFunc(order.Certificates, func(der []byte) bool { return slices.Equal(der, leaf.Raw) }) {
			continue
		}
		if err := f.usable(id, order, t); err != nil {
			return nil, err
		}
		order.ID = id
		return &order, nil
	}
	say("%s knows no order with this certificate", f.about.Name)
	return nil, nil
}

// namedOrder asks for the order that a person has named.
func (f *flow) namedOrder(ctx context.Context, t takeover) (*vendors.Order, error) {
	order, err := f.vendor.Status(ctx, t.orderID)
	if errors.Is(err, vendors.ErrNotFound) {
		return nil, fmt.Errorf("%s does not know order %s; is the ID right, and does the order belong to this account? nothing is imported: %w",
			f.about.Name, t.orderID, err)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for order %s at %s: %w", t.orderID, f.about.Name, err)
	}
	order.ID = t.orderID
	return &order, f.usable(t.orderID, order, t)
}

// usable refuses an order that cannot be used with the certificate: one that has ended, has no
// certificate yet, or has another or a revoked one.
func (f *flow) usable(id string, order vendors.Order, t takeover) error {
	leaf := t.chain.leaf()
	switch {
	case order.Status == vendors.StatusReplaced:
		return fmt.Errorf("order %s at %s was reissued or renewed under another ID (%s); import the certificate of that one", id, f.about.Name, order.Describe())
	case order.Status.Ended():
		return fmt.Errorf("order %s at %s cannot be used: it is %s", id, f.about.Name, order.Describe())
	case order.CertificateRevoked:
		return fmt.Errorf("the certificate of order %s at %s was revoked; use the order with the option order, and it is reissued", id, f.about.Name)
	case order.Status != vendors.StatusIssued:
		return fmt.Errorf("order %s at %s is not done: it is %s. Import its certificate when it is there, or use the option order, which waits for it",
			id, f.about.Name, order.Describe())
	case slices.ContainsFunc(order.Certificates, func(der []byte) bool { return slices.Equal(der, leaf.Raw) }):
		return nil
	}
	got, err := buildChain(order.Certificates, nil)
	if err != nil && len(got) == 0 {
		return fmt.Errorf("order %s at %s has no certificate that could be compared: %w", id, f.about.Name, err)
	}
	its := got.leaf()
	return fmt.Errorf("order %s at %s has another certificate than %s: for %s, serial number %s, valid from %s to %s, instead of for %s, serial number %s, valid from %s to %s. "+
		"If the order was reissued since, import the newer certificate", id, f.about.Name, t.file,
		namesIn(its), serialOf(its), its.NotBefore.UTC().Format(time.DateOnly), its.NotAfter.UTC().Format(time.DateOnly),
		namesIn(leaf), serialOf(leaf), leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
}

// toStore returns the names to store the certificate for: those that do not have it already. To
// replace one that lasts longer is an error, unless it is forced.
func (f *flow) toStore(ctx context.Context, t takeover, say say) ([]string, error) {
	leaf := t.chain.leaf()
	var names []string
	for _, name := range t.names {
		have, _, err := f.site.Stored(ctx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case isTorn(err):
			say("what is stored for %s cannot be served, and is replaced: %v", name, err)
		case err != nil:
			return nil, fmt.Errorf("reading the stored certificate of %s: %w", name, err)
		case have.Equal(leaf):
			say("the certificate is stored for %s already", name)
			continue
		case have.NotAfter.After(leaf.NotAfter) && !t.force:
			return nil, fmt.Errorf("the stored certificate of %s, serial number %s, lasts until %s, longer than the one in %s, which lasts until %s; "+
				"nothing is imported. --force replaces it", name, serialOf(have), have.NotAfter.UTC().Format(time.RFC3339), t.file, leaf.NotAfter.UTC().Format(time.RFC3339))
		default:
			say("the stored certificate of %s, serial number %s, which lasts until %s, is replaced", name, serialOf(have), have.NotAfter.UTC().Format(time.DateOnly))
		}
		names = append(names, name)
	}
	return names, nil
}

// carryOut does what was planned, in the same sequence as for any order, so that a server can go
// on from wherever it breaks off: before the entry, a copy of the private key is stored with the
// ledger, and it is removed once the key is beside the certificate.
func (f *flow) carryOut(ctx context.Context, plan *taking, say say) error {
	e := cmp.Or(plan.entry, plan.known, &ledger.Entry{})
	if plan.known == nil {
		// Asking the vendor took a while, so the ledger is read again.
		about, err := f.aboutNow(ctx, plan.takeover)
		if err != nil {
			return err
		}
		t := plan.takeover
		t.orderID, t.noOrder = e.OrderID, plan.entry == nil
		if err := f.unheld(about, t); err != nil {
			return err
		}
	}
	if plan.entry != nil {
		key, err := encodeKey(plan.key)
		if err != nil {
			return err
		}
		if err := f.keepKey(ctx, key, e.Attempt.Reference); err != nil {
			return err
		}
		// What a running server has entered since must not be written over.
		if have, err := f.ledger.Load(ctx, e.ID); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = inLedger(have, f.ledger.Time())
				if have.Attempt.Reference != e.Attempt.Reference {
					err = errors.Join(err, f.ledger.ForgetKey(ctx, e.Attempt.Reference))
				}
			}
			return err
		}
		e.Decide(f.ledger.Time(), "caddy commercial import: order "+e.OrderID+", bought elsewhere")
		if err := f.ledger.Create(ctx, e); err != nil {
			return fmt.Errorf("%w; nothing else was changed, run the command again", err)
		}
		say("entered order %s into the ledger (entry %s)", e.OrderID, e.ID)
	}
	for _, name := range plan.store {
		if err := f.site.Deliver(ctx, name, plan.key, issuedCertificate(f.about, plan.chain, e)); err != nil {
			return fmt.Errorf("storing the certificate for %s: %w; run the command again", name, err)
		}
		say("stored certificate and private key for %s", name)
	}
	if e.Certificate == nil {
		return nil
	}
	// It is beside the certificate now. An earlier import may have broken off before this.
	if err := f.ledger.ForgetKey(ctx, e.Certificate.Reference); err != nil || plan.entry == nil {
		return err
	}
	return f.meanwhile(ctx, plan, say)
}

// meanwhile warns if a server has ordered for the names while they were imported. A server looks
// into the ledger twice before it pays, so it did both times before the entry was there.
func (f *flow) meanwhile(ctx context.Context, plan *taking, say say) error {
	about, err := f.aboutNow(ctx, plan.takeover)
	if err != nil {
		return err
	}
	now := f.ledger.Time()
	for _, other := range about {
		if other.ID != plan.entry.ID && slices.ContainsFunc(plan.names, func(name string) bool { return other.Blocks(name, f.margin(other), now) }) {
			say("warning: a server has ordered for %s meanwhile (entry %s, %s); if it is paid for, it is used, too", strings.Join(other.Names, ", "), other.ID, other.State)
		}
	}
	return nil
}

// prospects tells what will become of the names.
func (f *flow) prospects(plan *taking, ratio float64, say say) {
	leaf := plan.chain.leaf()
	due := ledger.RenewalBegins(leaf.NotBefore, leaf.NotAfter, ratio)
	e := cmp.Or(plan.entry, plan.known)
	if e == nil {
		say("No order is known for this certificate. When it is due, on %s, a new one is placed and paid for.", due.UTC().Format(time.DateOnly))
		say("If its term lasts longer, import it once more, with --order and the ID that it has at %s.", f.about.Portal)
		return
	}
	until := e.Ends.Add(-e.Margin(f.margin(e)))
	switch now := f.ledger.Time(); {
	case !now.Before(until):
		say("Order %s is paid until %s, which is near: a new one is placed when the certificate is due, on %s.", e.OrderID, e.Ends.UTC().Format(time.DateOnly), due.UTC().Format(time.DateOnly))
		return
	case f.site.Due(leaf):
		say("The certificate is due for renewal: it is reissued, free of charge, as soon as Caddy serves it.")
	default:
		say("The certificate is due on %s: then it is reissued, free of charge.", due.UTC().Format(time.DateOnly))
	}
	say("No order is placed for its names before %s. Order %s is paid until %s.", until.UTC().Format(time.DateOnly), e.OrderID, e.Ends.UTC().Format(time.DateOnly))
}

// files are the storage keys under which certmagic keeps what belongs to a name.
func files(issuerKey, name string) []string {
	return []string{
		certmagic.StorageKeys.SiteCert(issuerKey, name),
		certmagic.StorageKeys.SitePrivateKey(issuerKey, name),
		certmagic.StorageKeys.SiteMeta(issuerKey, name),
	}
}
