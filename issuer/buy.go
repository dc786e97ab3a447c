package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/app"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The times that keep a request from being paid for twice. sendBefore and paidCallTimeout are
// cut where Description.AbsenceAge is short, so that together they stay below it.
const (
	// sendBefore is the longest that a paid request may be sent after its entry was stored, see
	// sendWithin. After that, other servers may no longer take the entry for a young one.
	sendBefore = time.Minute

	// paidCallTimeout bounds a paid call where the vendor's AbsenceAge does not.
	paidCallTimeout = 2 * time.Minute

	// reloadGrace is how long a paid call that is on its way may still wait for its answer
	// after the config was unloaded. Without it, each reload at a bad moment would cost a
	// look-up.
	reloadGrace = 10 * time.Second
)

// purchase is an order that is being prepared.
type purchase struct {
	names    []string
	csr      []byte
	key      []byte // PEM; nil if it is not known
	proof    proof.Proof
	entry    *ledger.Entry
	noted    bool // there is a draft
	kept     bool // the key may be stored
	stored   bool // the entry is in the ledger, and in charge of the proof
	recorded bool // it has been in the ledger, and no longer counts as being prepared
}

// buy places an order for the name and the others of its group that need one, if the
// rules allow it, and returns its entry, ready to be driven on. unsure is why the ledger could not
// be listed, nil if it was; unless it is nil, nothing is bought.
func (f *flow) buy(ctx context.Context, name string, w *want, about []*ledger.Entry, unsure error) progress {
	if err := f.mayBuy(name, w, about); err != nil {
		p := progress{err: err, stop: isFinal(err)}
		if hold, ok := errors.AsType[*HoldError](err); ok {
			p.wait = min(hold.Until.Sub(f.ledger.Time()), time.Hour)
		}
		return p
	}
	if unsure != nil {
		return progress{err: fmt.Errorf("nothing is bought for %s while the ledger cannot be read: %w", name, unsure)}
	}
	if err := f.storageKept(name); err != nil {
		return progress{err: err}
	}
	if err := f.withinLimit(); err != nil {
		f.tellLimit(name, err)
		return progress{err: err, wait: f.limitWait(err)}
	}
	if !f.account.purchases.admit(f.config, name, len(f.group(name)), f.room) {
		return f.queued(name)
	}
	b := new(purchase)
	work := app.Pause(ctx) // purchases have bounds of their own
	end := sync.OnceFunc(func() {
		f.account.purchases.leave(b.recorded, f.wake)
		work()
	})
	defer end()
	names, err := f.namesToBuy(ctx, name)
	if err != nil {
		return progress{err: err}
	}
	if !slices.Contains(names, name) {
		return progress{err: &PendingError{Vendor: f.about.Name, Names: []string{name}, Detail: "another order covers it"}, wait: time.Second}
	}
	release, ok := f.ledger.Memory.Claim(names)
	if !ok {
		return progress{err: &PendingError{Vendor: f.about.Name, Names: names, Detail: "an order for it is being prepared"}, wait: f.rules.pace.Min}
	}
	defer release()
	// Only now are the entries about the other names of the group read.
	if about, err = f.ledger.About(ctx, names...); err != nil {
		return progress{err: err}
	}
	if p, lives := f.revive(ctx, name, about); lives {
		return p
	}
	j := &errand{name: name, want: unrevoked(w, about...), log: f.logger.With(zap.String("identifier", name), zap.String("vendor", f.about.Name))}
	b.names = names
	defer func() { f.abandon(ctx, b) }()
	if err := f.prepare(ctx, j, b, f.renewable(about, names)); err != nil {
		return progress{err: err}
	}
	return f.place(ctx, j, b, end)
}

// rulesOf are today's rules for a name.
func (f *flow) rulesOf(name string) operator.Rules {
	_, adopted := f.adoptedFor(name)
	configured, onDemand := f.site.Allows(name)
	return operator.Rules{
		Allowed: configured && (!onDemand || f.rules.allowOnDemand), Group: f.group(name), Adopted: adopted, ReplaceEnded: f.rules.replaceEnded,
	}
}

// isStored reports whether a certificate of this issuer is stored for the name. If that cannot
// be told, it is true.
func (f *flow) isStored(ctx context.Context, name string) bool {
	_, _, err := f.site.Stored(ctx, name)
	return !errors.Is(err, fs.ErrNotExist)
}

// revive looks once more at an order that was given up, before another one is paid for in its place.
// If the vendor no longer says that it has ended, it is used again.
func (f *flow) revive(ctx context.Context, name string, about []*ledger.Entry) (p progress, lives bool) {
	for _, e := range about {
		if e.State != ledger.Gone || !e.GivenUp || e.Over(f.ledger.Time()) || !e.Speaks(name) {
			continue
		}
		order, err := f.vendor.Status(ctx, e.OrderID)
		switch {
		case ctx.Err() != nil:
			return progress{err: context.Cause(ctx)}, true
		case err != nil && vendors.VerdictOf(err) != vendors.Permanent:
			return progress{err: f.pending(e, err.Error()), wait: retryMin}, true
		case err != nil, order.Status.Ended():
			continue
		}
		next, err := f.ledger.Write(ctx, e, func(e *ledger.Entry) {
			e.State, e.GivenUp, e.Problem = ledger.Open, false, ""
		})
		if err != nil {
			return progress{err: err}, true
		}
		f.logger.Warn("the vendor no longer says that a paid order has ended; it is used again, and no other one is placed",
			zap.Strings("identifiers", e.Names), zap.String("order_id", e.OrderID), zap.String("status", order.Describe()))
		return progress{err: f.pending(next, "it is active after all"), wait: time.Second}, true
	}
	return progress{}, false
}

// queued ends a round of a name that has to wait to buy. The name is woken when its turn comes.
func (f *flow) queued(name string) progress {
	return progress{err: &PendingError{Vendor: f.about.Name, Names: []string{name}, Detail: "other orders of this account go first"}, wait: 10 * time.Minute}
}

// namesToBuy returns the names of today's group that no order blocks and that may be
// bought for.
func (f *flow) namesToBuy(ctx context.Context, name string) ([]string, error) {
	group := f.group(name)
	about, err := f.ledger.About(ctx, group...)
	if err != nil {
		return nil, err
	}
	now := f.ledger.Time()
	var names []string
	for _, n := range group {
		if r := f.rulesOf(n); r.Allowed && !r.Adopted && !f.blocked(about, n, now) {
			names = append(names, n)
		}
	}
	return names, nil
}

// renewable returns the ID of the order that a renewal would continue, if the vendor's renewal
// buys exactly what an order would; empty if there is none.
func (f *flow) renewable(about []*ledger.Entry, names []string) string {
	if _, ok := f.vendor.(vendors.Renewer); !ok {
		return ""
	}
	now := f.ledger.Time()
	for _, e := range about {
		left := e.Ends.Sub(now)
		due := left > 0 && left <= min(f.about.RenewWindow, e.Margin(f.margin(e)))
		if e.State != ledger.Issued || !due || !slices.Equal(e.Names, names) || f.account.renewalRefused(e.OrderID) {
			continue
		}
		same := e.Product == f.order.Product && e.Term == f.order.Term && !e.BoughtElsewhere()
		if same || !f.about.RenewKeepsProduct {
			return e.OrderID
		}
	}
	return ""
}

// prepare does everything that is free: it makes the request, presents and looks for its
// proofs, and passes the vendor's checks.
func (f *flow) prepare(ctx context.Context, j *errand, b *purchase, previous string) error {
	reference := f.newReference()
	key, csr, err := f.requestFor(j, b.names)
	if err != nil {
		return err
	}
	b.key, b.csr = key, csr
	a := ledger.Attempt{Kind: ledger.KindOrder, Reference: reference, AbsenceAge: f.about.AbsenceAge, CSR: csr, PreviousID: previous}
	if f.about.NeedsUnique {
		a.Unique = f.newUnique()
	}
	b.entry = &ledger.Entry{
		ID: f.ledger.NewID(), Names: b.names, State: ledger.Asked,
		Product: f.order.Product, Term: f.order.Term, Method: f.order.Method, Attempt: a,
	}
	b.entry.Maybe = f.maybeNames(b.names)
	if b.proof, err = f.presentAndWait(ctx, b.entry, &b.noted); err != nil {
		return err
	}
	b.entry.Attempt.Challenges = b.proof.Challenges
	leave, err := f.account.purchases.check(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if v, ok := f.vendor.(vendors.Validator); ok {
		if err := v.Validate(ctx, f.request(b.entry)); err != nil {
			return fmt.Errorf("validating the order for %s: %w", b.names[0], err)
		}
	}
	if p, ok := f.vendor.(vendors.Preparer); ok {
		prepared, err := p.Prepare(ctx, f.request(b.entry))
		if err != nil {
			return fmt.Errorf("preparing the order for %s: %w", b.names[0], err)
		}
		b.entry.Attempt.PreparedID, b.entry.Attempt.AnyKey = prepared.ID, prepared.Foreign
	}
	return nil
}

// maybeNames are the names that the CA may add to an order for the given ones.
func (f *flow) maybeNames(names []string) (maybe []string) {
	if !f.about.CoversTwin {
		return nil
	}
	for _, name := range names {
		if twin := dcv.Twin(name); twin != "" && !slices.Contains(names, twin) && !slices.Contains(maybe, twin) {
			maybe = append(maybe, twin)
		}
	}
	return maybe
}

// presentAndWait presents the proofs of a request that is to be sent, and waits until the
// CA would find them. Where the vendor tells them only after the request was sent, it does so
// with a trial, see [proof.Trial].
func (f *flow) presentAndWait(ctx context.Context, e *ledger.Entry, noted *bool) (proof.Proof, error) {
	p := f.proofOf(e)
	p.Challenges = nil
	if v, ok := f.vendor.(vendors.Predictor); ok {
		var err error
		if p.Challenges, err = v.Predict(f.request(e)); err != nil {
			return p, fmt.Errorf("computing the validation challenge for %s: %w", e.Names[0], err)
		}
	}
	if len(p.Challenges) == 0 {
		p.Trial = proof.Trial(p.ID, p.Method, f.about)
	}
	if p.Method == vendors.MethodDNS {
		if err := f.keepDraft(ctx, p); err != nil {
			return p, err
		}
		*noted = true
	}
	if err := f.prove.Present(ctx, p); err != nil {
		return p, fmt.Errorf("presenting the proof of control of %s: %w", e.Names[0], err)
	}
	if err := f.prove.Wait(ctx, p); err != nil {
		f.prove.CleanUp(ctx, p)
		return p, fmt.Errorf("checking that the CA can validate %s: %w", e.Names[0], err)
	}
	if len(p.Trial) > 0 {
		f.prove.CleanUp(ctx, p)
		p.Trial = nil
	}
	return p, nil
}

// place stores the entry of an order, makes sure that it stands alone, and sends it. sent is
// called when the paid call has ended.
func (f *flow) place(ctx context.Context, j *errand, b *purchase, sent func()) progress {
	e := b.entry
	ahead := max(sendWithin(f.about)-f.rules.settle, 0) / 2
	if _, ok := f.vendor.(vendors.Finder); !ok {
		ahead = 0 // after a crash, a person must look for each of them
	}
	done, err := f.account.purchases.write(ctx, ahead)
	if err != nil {
		return progress{err: err}
	}
	defer done()
	b.kept = b.key != nil
	if err := f.keepKey(ctx, b.key, e.Attempt.Reference); err != nil {
		return progress{err: err}
	}
	e.Paid = f.ledger.Time()
	e.Ends, e.Attempt.Started = ledger.EndOfTerm(e.Paid, e.Term), e.Paid
	// Nothing else in this process has a reason to look up what is about to be sent.
	if done, ok := f.account.drive(e.ID); ok {
		defer done()
	}
	stored := time.Now()
	paid := func() {}
	err = f.ledger.Create(ctx, e)
	if err == nil {
		b.stored, b.recorded = true, true
		f.account.purchases.recorded()
		paid, err = f.turn(ctx, e, stored)
	}
	if err == nil {
		err = f.onTime(stored)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		paid()
		b.stored = false
		// Nothing was sent, so nothing was bought.
		if derr := f.ledger.Delete(ctx, e.ID); derr != nil {
			err = errors.Join(err, derr)
		}
		p := progress{err: err}
		if waits(err) {
			p.wait = f.rules.pace.Min + time.Duration(4*f.jitter()*float64(f.rules.pace.Min))
		}
		return p
	}
	f.account.use(j.want)
	j.log.Info("ordering certificate", zap.String("product", e.Product), zap.Strings("names", e.Names),
		zap.String("reference", e.Attempt.Reference), zap.Bool("renewal", e.Attempt.PreviousID != ""))
	j.armed, j.since = e.Attempt.Reference, stored
	j.paid = sync.OnceFunc(func() {
		paid()
		done()
		sent()
	})
	defer j.paid()
	return f.steps(ctx, j, e)
}

// turn waits for as long as the storage may take to show what others wrote, makes sure that
// the order stands alone, and waits until it may be paid for. Whoever stores another entry
// meanwhile finds this one. paid ends the turn; it is not nil, even with an error.
func (f *flow) turn(ctx context.Context, e *ledger.Entry, stored time.Time) (paid func(), err error) {
	nothing := func() {}
	if f.rules.settle > 0 {
		if err := poll.Wait(ctx, f.rules.settle); err != nil {
			return nothing, err
		}
	}
	if err := f.alone(ctx, e); err != nil {
		return nothing, err
	}
	within := sendWithin(f.about)
	late := &vendors.Error{Endpoint: "order", Verdict: vendors.Retryable, Err: fmt.Errorf("not sent: its turn did not come within %s", within)}
	inTime, cancel := context.WithDeadlineCause(ctx, stored.Add(within), late)
	defer cancel()
	if paid, err = f.account.purchases.pay(inTime); err != nil {
		return nothing, err
	}
	return paid, nil
}

// alone returns an error if another order blocks one of the names, or if the spending limit is
// exceeded.
func (f *flow) alone(ctx context.Context, e *ledger.Entry) error {
	if err := f.list(ctx); err != nil {
		return fmt.Errorf("nothing is bought for %s while the ledger cannot be read: %w", e.Names[0], err)
	}
	if err := f.storageInTime(ctx, e.Names[0]); err != nil {
		return err
	}
	if limit := f.overLimit(f.rules.spend.Orders); limit != nil {
		f.tellLimit(e.Names[0], limit)
		return limit
	}
	// The others are read anew, but not our own, which nobody has a reason to change.
	found := false
	now := f.ledger.Time()
	for _, other := range f.ledger.Memory.Others(e.Names, e.ID, &found) {
		other, err := f.ledger.Load(ctx, other.ID)
		if errors.Is(err, fs.ErrNotExist) {
			return f.pending(e, "another one was withdrawn meanwhile")
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(e.Names, func(n string) bool { return other.Blocks(n, f.margin(other), now) }) {
			return f.pending(other, "it was placed meanwhile")
		}
	}
	if !found {
		return fmt.Errorf("nothing is bought for %s: the storage lost the ledger's entry before anything was sent; is it shared, and does it keep what is written?", e.Names[0])
	}
	return nil
}

// sendWithin is how long after its entry was stored a paid request may be sent to a vendor:
// sendBefore, or a quarter of Description.AbsenceAge, after which other servers take the absence
// of the order for proof, if that is less. The paid call itself takes at most half of AbsenceAge.
func sendWithin(about vendors.Description) time.Duration {
	if quarter := about.AbsenceAge / 4; quarter > 0 {
		return min(sendBefore, quarter)
	}
	return sendBefore
}

// onTime returns an error if too much time has passed since the entry was stored, by the
// monotonic clock or by the wall clock: the machine may have slept.
func (f *flow) onTime(stored time.Time) error {
	late := max(time.Since(stored), time.Now().Round(0).Sub(stored.Round(0)))
	if late <= sendWithin(f.about) {
		return nil
	}
	return &vendors.Error{Endpoint: "order", Verdict: vendors.Retryable, Err: fmt.Errorf("not sent: %s passed since it was recorded", late.Round(time.Second))}
}

// abandon takes away what was prepared for an order that is not placed. An entry that is
// in the ledger is in charge itself.
func (f *flow) abandon(ctx context.Context, b *purchase) {
	if b.stored || b.entry == nil {
		return
	}
	f.account.forgetLook(b.entry.Attempt.Reference)
	f.prove.CleanUp(ctx, b.proof)
	if b.noted {
		f.forgetDraft(ctx, b.entry.Attempt.Reference)
	}
	if b.kept {
		f.forgetKey(ctx, b.entry.Attempt.Reference)
	}
}

// pay sends the paid request, once. It is given up long before the absence of the order
// could be taken for proof, so that a late request cannot follow a look-up.
func (f *flow) pay(ctx context.Context, j *errand, e *ledger.Entry) move {
	timeout := paidCallTimeout
	if half := f.about.AbsenceAge / 2; half > 0 && half < timeout {
		timeout = half
	}
	defer j.paid()
	paidCtx, cancel := poll.WithGrace(ctx, timeout, reloadGrace)
	defer cancel()

	since := j.since
	sendCtx := vendors.BeforeSending(paidCtx, func() error { return f.onTime(since) })
	order, err := vendors.Order{}, f.onTime(since)
	renewal := e.Attempt.PreviousID != ""
	if err == nil {
		if r, ok := f.vendor.(vendors.Renewer); ok && renewal {
			order, err = r.Renew(sendCtx, e.Attempt.PreviousID, f.request(e))
		} else {
			order, err = f.vendor.Place(sendCtx, f.request(e))
		}
	}
	log := j.log.With(zap.String("reference", e.Attempt.Reference))
	switch {
	case err == nil && order.ID != "":
		f.account.presented(f.config, e.Attempt.Reference, e.Attempt.Challenges)
		log.Info("order placed", zap.String("order_id", order.ID), zap.String("ca_order_id", order.CAOrderID))
		return f.placed(e, order)
	case err != nil && vendors.VerdictOf(err) != vendors.Uncertain:
		f.forgetKey(ctx, e.Attempt.Reference)
		final := vendors.VerdictOf(err) == vendors.Permanent && !errors.Is(err, vendors.ErrBalance)
		if renewal && final && ctx.Err() == nil {
			f.account.refuseRenewal(e.Attempt.PreviousID)
			log.Warn("the vendor refuses to renew the order; a plain one is placed", zap.String("order_id", e.Attempt.PreviousID), zap.Error(err))
			return move{remove: true, done: &progress{err: &PendingError{Vendor: f.about.Name, Names: e.Names, Detail: "a plain order follows a refused renewal"}, wait: time.Second}}
		}
		return move{remove: true, done: &progress{err: fmt.Errorf("ordering for %s (nothing was bought): %w", e.Names[0], err)}}
	}
	if err == nil {
		err = errors.New("the answer has no order ID")
	}
	log.Warn("the answer to a paid order was lost; looking the order up by its reference", zap.Error(err))
	problem := err.Error()
	return move{change: func(e *ledger.Entry) { e.Problem = problem }, done: &progress{err: f.pending(e, problem), wait: f.rules.pace.Min}}
}

// placed is the vendor's word that there is an order.
func (f *flow) placed(e *ledger.Entry, order vendors.Order) move {
	asked := f.presentable(e, order.Challenges)
	return move{answer: true, change: func(e *ledger.Entry) {
		e.State, e.Flag, e.Problem = ledger.Open, nil, ""
		e.OrderID, e.CAOrderID = order.ID, order.CAOrderID
		if e.RootID == "" {
			e.RootID = order.ID
		}
		if !order.TermEnds.IsZero() {
			e.Ends = order.TermEnds.UTC()
		}
		if asked != nil {
			e.Attempt.Challenges = asked
		}
	}}
}
