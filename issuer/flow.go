package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// flow gets certificates for names, paying at most once per term. It knows no vendor by
// name, and no way of presenting a proof: those are the vendor and the prover. What must
// not be lost is in the ledger only, so that any number of flows, in this process and in
// others, can work on the same names.
type flow struct {
	vendor  vendors.Vendor
	about   vendors.Description
	order   vendors.OrderConfig
	rules   rules
	ledger  *ledger.Ledger
	prove   proof.Prover
	files   *dcv.Store // that validation files are served from
	server  string     // the host name of this server
	account *account
	site    site
	emit    func(event string, data map[string]any) // tells handlers; nil if there are none
	wake    func(name string)                       // asks for a round soon
	busy    func(name string) bool                  // whether a round for the name is due or to come
	config  any                                     // tells configurations apart
	logger  *zap.Logger
}

// site is the other side: what this server has of a name's certificate, and what its
// configuration says of the name.
type site interface {
	// Allows reports whether today's configuration has certificates for the name from
	// this issuer, and whether only a TLS handshake, which may be a stranger's, asks for one.
	Allows(name string) (configured, onDemand bool)

	// Manages reports whether today's configuration needs a certificate for the name from
	// this issuer. An issuer for all names is allowed more names than it manages.
	Manages(name string) bool

	// Stored returns the certificate of this issuer that certmagic has stored for the
	// name, with its key, or fs.ErrNotExist.
	Stored(ctx context.Context, name string) (*x509.Certificate, crypto.Signer, error)

	// Served returns the certificates for the name that this process has loaded.
	Served(name string) []*x509.Certificate

	// IsServed reports whether the name has a certificate of any kind that has not expired, even
	// if it is a stopgap.
	IsServed(name string) bool

	// Due reports whether certmagic would renew the certificate.
	Due(leaf *x509.Certificate) bool

	// NewKey makes a private key of the configured kind.
	NewKey() (crypto.Signer, error)

	// FindKey looks for a private key where certmagic may have it.
	FindKey(ctx context.Context, name, key string) (crypto.Signer, bool)

	// Deliver stores a certificate for the name and serves it. It must not be called while
	// certmagic waits for Issue for the same name.
	Deliver(ctx context.Context, name string, key crypto.Signer, cert *certmagic.IssuedCertificate) error

	// Reload serves what is stored.
	Reload(ctx context.Context, name string) error
}

// rules are the operator's bounds on what a flow may do.
type rules struct {
	pace          vendors.Pace
	maxWait       time.Duration // of a call of Issue; zero: no bound
	renewMargin   time.Duration // zero: see flow.margin
	settle        time.Duration // how late the storage may show a write
	spend         SpendLimit
	allowOnDemand bool
	watch         time.Duration // how often issued orders are looked at; negative or zero: never
	replaceEnded  bool          // whether orders that the vendor ended may be bought again
	groups        [][]string    // names that share one order
	adopted       []AdoptedOrder
	probe         proof.Mode
	prices        bool // whether the vendor is asked for them each day
}

// progress is what a round came to.
type progress struct {
	got   chain         // the certificate for the key of the call that waits
	entry *ledger.Entry // what it is from
	done  bool          // the name has what it needs
	stop  bool          // only a new call or another configuration leads on
	wait  time.Duration // until the next round; zero: see Round
	err   error         // what to tell; see waits
}

// Round does for a name what can be done now, and tells when to come back. Nothing in it
// waits for the vendor's CA.
func (f *flow) Round(ctx context.Context, name string) (again time.Duration, more bool) {
	w := f.account.want(name)
	p := f.pursue(ctx, name, w)
	f.account.purchases.pass(name, f.wake)
	f.account.replacements.pass(name, f.wake)
	log := f.logger.With(zap.String("identifier", name), zap.String("vendor", f.about.Name))
	switch {
	case p.got != nil && f.account.give(w, answer{got: p.got, entry: p.entry}):
		f.account.resetPace(name)
		return handoverPatience, true
	case p.got != nil:
		// The call has just ended. The next round stores it.
		return 0, true
	case p.done:
		f.account.forget(w)
		f.account.tell(w, answer{err: errDelivered})
		f.account.resetPace(name)
		return 0, false
	case ctx.Err() != nil:
		// The next configuration goes on.
		return time.Second, true
	}
	err := p.err
	if err == nil {
		err = errors.New("nothing can be done for now")
	}
	wait := p.wait
	if waits(err) {
		f.account.note(w, err)
		if wait == 0 {
			wait = f.rules.pace.Min
		}
		log.Debug("certificate not ready yet", zap.Error(err), zap.Duration("wait", wait))
		return wait, true
	}
	f.account.note(w, err)
	if p.stop {
		f.account.forget(w)
	}
	f.account.tell(w, answer{err: err})
	if p.stop {
		f.account.resetPace(name)
		return 0, false
	}
	pace := f.account.pace(name)
	if wait == 0 {
		if pace.schedule.Min == 0 {
			pace.schedule = poll.Schedule{Min: retryMin, Max: retryMax}
		}
		wait = pace.schedule.Next(f.jitter)
	}
	if f.account.report(name, err) {
		log.Error("getting a certificate failed; trying again", zap.Error(err), zap.Duration("wait", wait))
	} else {
		log.Info("getting a certificate failed as before; trying again", zap.Error(err), zap.Duration("wait", wait))
	}
	return wait, true
}

// handoverPatience is how long certmagic may take to store a certificate that Issue
// returned, before it is taken for lost on the way.
const handoverPatience = 2 * time.Minute

// pursue decides what the name needs, and does the next part of it.
func (f *flow) pursue(ctx context.Context, name string, w *want) progress {
	h, handed := f.account.takeHandover(name)
	switch left := handoverPatience - time.Since(h.at); {
	case handed && h.stored:
		f.forgetKey(ctx, h.reference)
		if w == nil {
			return progress{done: true}
		}
	case handed && left > 0 && w == nil:
		pending := &PendingError{Vendor: f.about.Name, Names: []string{name}, Detail: "its certificate is being stored"}
		return progress{err: pending, wait: left}
	}
	e := f.underway(name)
	if e != nil && e.State == ledger.Asked {
		// Another server may have deleted it, without sending anything.
		_, _ = f.ledger.Load(ctx, e.ID)
		e = f.underway(name)
	}
	if e != nil {
		// What this process knows is enough to go on with an order: another server's changes
		// show when this one wants to write.
		if p := f.drive(ctx, name, w, e, nil); p.got != nil || p.done || p.err != nil && waits(p.err) || ctx.Err() != nil {
			return p
		}
	}
	// Of thousands of names that certmagic asks for at a time, each costs little until its
	// turn has come.
	plain := w != nil && f.account.listings.lately() && !f.account.ledger.Knows(name) && f.mayBuy(name, w, nil) == nil
	if plain && f.account.purchases.crowded(f.config, name, len(f.group(name))) {
		return f.queued(name)
	}
	var unsure error // unless nil, nothing may be bought, but what is known is driven
	if !plain {
		unsure = f.list(ctx)
	}
	about, err := f.ledger.About(ctx, name)
	if err != nil {
		return progress{err: err}
	}
	now := f.ledger.Time()
	speak := slices.DeleteFunc(slices.Clone(about), func(e *ledger.Entry) bool {
		return e.State == ledger.Gone || e.Over(now) || !e.Speaks(name)
	})
	have, err := f.have(ctx, name, w, speak)
	if err != nil {
		return progress{err: err}
	}
	// A person who has asked for another certificate gets it from an order that is paid for, or
	// not at all.
	unwanted := w == nil && f.unwanted(have, about)
	due := w != nil || have == nil || f.site.Due(have) || f.lost(name, have) && (!unwanted || len(speak) > 0)
	if !due {
		return f.keep(ctx, name, have, speak)
	}
	if unsure == nil {
		if adopted, err := f.adopt(ctx, name, speak); err != nil {
			return progress{err: err, stop: isFinal(err) && len(speak) == 0}
		} else if adopted != nil {
			speak, about = slices.Insert(speak, 0, adopted), append(about, adopted)
		}
	}
	var failed progress
	if !unwanted && !f.blocked(about, name, now) {
		bought := f.buy(ctx, name, w, about, unsure)
		if bought.entry != nil && (bought.err == nil || waits(bought.err)) {
			return bought
		}
		failed = bought // an order whose term is almost over still helps
	}
	for _, e := range speak {
		p := f.drive(ctx, name, w, e, have)
		if p.got != nil || p.done || p.err != nil && waits(p.err) || ctx.Err() != nil {
			return p
		}
		if failed.err == nil {
			failed = p
		}
	}
	return failed
}

// underway returns the newest order for the name, as far as this process knows, if there
// is nothing to be done but to wait for it.
func (f *flow) underway(name string) *ledger.Entry {
	now := f.ledger.Time()
	for _, b := range f.account.ledger.About(name) {
		if !b.Serves(name, now) {
			continue
		}
		if e := b.Entry; e != nil && e.Flag == nil && (e.State == ledger.Asked || e.State == ledger.Open) && e.Blocks(name, f.margin(e), now) {
			return e
		}
		return nil
	}
	return nil
}

// have returns the certificate that is stored for the name, as far as it matters: the
// first certificate of a name that certmagic asks for is not worth a look.
func (f *flow) have(ctx context.Context, name string, w *want, speak []*ledger.Entry) (*x509.Certificate, error) {
	if w != nil && !slices.ContainsFunc(speak, func(e *ledger.Entry) bool { return e.Certificate != nil }) {
		return nil, nil
	}
	leaf, _, err := f.site.Stored(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !isTorn(err) {
		return nil, fmt.Errorf("reading the stored certificate of %s: %w", name, err)
	}
	return leaf, nil
}

// keep looks after a name whose stored certificate is good: what another server has got is
// served, and what is under way is followed to its end, be it an order that is paid for or a
// reissue that somebody had a reason to ask for.
func (f *flow) keep(ctx context.Context, name string, have *x509.Certificate, speak []*ledger.Entry) progress {
	if !slices.ContainsFunc(f.site.Served(name), func(c *x509.Certificate) bool { return serialOf(c) == serialOf(have) }) {
		if err := f.site.Reload(ctx, name); err != nil {
			return progress{err: fmt.Errorf("serving the stored certificate of %s: %w", name, err)}
		}
	}
	kept := progress{done: true}
	for _, e := range speak {
		if e.State == ledger.Issued && !f.better(e, name, have) {
			continue
		}
		p := f.drive(ctx, name, nil, e, have)
		if p.done || p.err != nil && waits(p.err) || ctx.Err() != nil {
			return p
		}
		if kept.done {
			kept = p
		}
	}
	return kept
}

// better reports whether the latest certificate of an order is to replace the given one,
// which is an earlier one of the order, or that of another. NotBefore tells nothing: some CAs
// set it to an hour ago, others to midnight. A certificate that is due already is better than
// none, and than one that ends no later: otherwise a CA that gives nothing else would be asked
// for reissues for ever.
func (f *flow) better(e *ledger.Entry, name string, have *x509.Certificate) bool {
	c := e.Certificate
	if e.State != ledger.Issued || c == nil || e.DeadCertificate() || !time.Now().Before(c.NotAfter) {
		return false
	}
	if e.UnwantedCertificate() {
		return have == nil // it is served until there is another one
	}
	if have == nil || f.lost(name, have) {
		return true
	}
	if f.due(c) && c.NotAfter.Before(have.NotAfter) {
		return false
	}
	serial := serialOf(have)
	return c.Serial != serial && !slices.ContainsFunc(f.account.ledger.About(name), func(other *ledger.Brief) bool {
		return other.ID != e.ID && other.Gave(serial) && other.PaidAfter(e.Paid)
	})
}

// lost reports whether a certificate is of no use any more, though it has not expired. It is
// served until there is another one.
func (f *flow) lost(name string, have *x509.Certificate) bool {
	return have != nil && f.account.ledger.HasLost(name, serialOf(have))
}

// unwanted reports whether a certificate is good, but a person has asked for another one.
func (f *flow) unwanted(have *x509.Certificate, about []*ledger.Entry) bool {
	return have != nil && !f.site.Due(have) && slices.ContainsFunc(about, func(e *ledger.Entry) bool {
		return e.State != ledger.Gone && e.UnwantedCertificate() && e.Certificate.Serial == serialOf(have)
	})
}

func (f *flow) blocked(about []*ledger.Entry, name string, now time.Time) bool {
	return slices.ContainsFunc(about, func(e *ledger.Entry) bool { return e.Blocks(name, f.margin(e), now) })
}

// margin is how much of an order's term is given up in order to have the next one in
// time: what is configured, or a twelfth of the term but at most 30 days.
func (f *flow) margin(e *ledger.Entry) time.Duration { return f.rules.margin(e) }

func (r rules) margin(e *ledger.Entry) time.Duration {
	if r.renewMargin > 0 {
		return r.renewMargin
	}
	return min(ledger.EndOfTerm(e.Paid, e.Term).Sub(e.Paid)/12, 30*24*time.Hour)
}

// group returns the names of the order that a name belongs to, in the configured order;
// usually just itself.
func (f *flow) group(name string) []string {
	for _, group := range f.rules.groups {
		if slices.Contains(group, name) {
			return group
		}
	}
	return []string{name}
}

// adoptedFor returns the order bought elsewhere that is configured for the name.
func (f *flow) adoptedFor(name string) (AdoptedOrder, bool) {
	i := slices.IndexFunc(f.rules.adopted, func(a AdoptedOrder) bool { return slices.Contains(a.Names, name) })
	if i < 0 {
		return AdoptedOrder{}, false
	}
	return f.rules.adopted[i], true
}

// forgetKey removes the private key of a request, which is stored beside its certificate by now
// or of no use, and forgets what was seen of the request.
func (f *flow) forgetKey(ctx context.Context, reference string) {
	f.account.forgetLook(reference)
	if err := f.ledger.ForgetKey(ctx, reference); err != nil {
		f.logger.Warn("removing a private key that is not needed any more failed", zap.String("reference", reference), zap.Error(err))
	}
}
