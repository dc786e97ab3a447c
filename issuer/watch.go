package issuer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// No vendor reports of its own accord what becomes of an order after it has given its
// certificate: the CA may revoke the certificate, and the vendor the order. So all such orders
// are looked at once per interval, part by part. Servers share the parts through a file in the
// storage, so that only one of them makes the calls; each reads the entries for itself once per
// interval, because another server may have replaced what it serves.

const (
	// watchParts is the number of parts in which the orders are looked at. The looks at a part
	// are spread over its share of the interval.
	watchParts = 16

	// watchSlack is how early a part is due again before the interval is over, in shares of the
	// interval: it may begin one share later, and if the server that looks at it dies, another
	// one begins up to two shares after that.
	watchSlack = 4

	// watchLate is how many shares of the interval late a part may be before the looks at it are
	// less spread, to make up for it, such as after a restart.
	watchLate = 1

	// giveBackWithin bounds how long the end of a configuration waits for the storage.
	giveBackWithin = 2 * time.Second

	// watchPace is the shortest time between two looks, unless the vendor's Pace has another.
	// While something is bought, it is multiplied by watchYield; after more has changed than
	// the vendor tells, it is divided by watchRush for a while.
	watchPace  = 250 * time.Millisecond
	watchYield = 4
	watchRush  = 3

	// watchAtOnce is how many looks are under way at a time at most, so that a vendor that takes a
	// second for an answer does not make the round longer.
	watchAtOnce = 4

	// watchFailures is how many looks in a row may fail before the others of a part wait, too.
	watchFailures = 5

	// confirmAfter is after which time the vendor must still say that an order has ended before
	// that is acted upon: vendors were seen to say so for a moment.
	confirmAfter = 10 * time.Minute

	// confirmTermAfter is the same for an earlier end of a term, which lets the next order be
	// placed sooner. There is no hurry.
	confirmTermAfter = 24 * time.Hour
)

// watch looks at the orders that have their certificates until ctx ends.
func (f *flow) watch(ctx context.Context, isFirst func(name string) bool) {
	if f.rules.watch <= 0 {
		return
	}
	part, s := f.rules.watch/watchParts, &f.account.suspects
	wait := s.begin(time.Duration((0.5 + f.jitter()) * float64(part) / 2))
	for s.await(ctx, wait) {
		next := f.watchPart(ctx, part, isFirst)
		if ctx.Err() != nil {
			s.hurry()
			return
		}
		wait = max(time.Until(next), 0)
	}
}

// spread is the time over which the looks at a part are spread. It leaves some for what is late.
func spread(part time.Duration) time.Duration { return part * 4 / 5 }

// watchPart reads the entries whose turn it is, and looks at the orders of the part that is due,
// if any. next is when the next turn is: sooner if another part is due, too.
func (f *flow) watchPart(ctx context.Context, part time.Duration, isFirst func(string) bool) (next time.Time) {
	s := &f.account.suspects
	next = time.Now().Add(part)
	if !f.account.ledger.Listed() || !f.account.watching.TryLock() {
		return next // the first listing is under way, or another configuration looks
	}
	defer f.account.watching.Unlock()
	defer func() {
		if v := recover(); v != nil {
			f.logger.Error("panic while looking at orders that have their certificates; trying again later",
				zap.String("vendor", f.about.Name), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		}
	}()
	began := s.turn()
	next = began.Add(part)
	s.plan(next)
	f.complain(ctx, f.notice(ctx, isFirst)) // the vendor is asked all the same
	took, err := f.takeTurn(ctx, part)
	f.complain(ctx, err)
	next = began.Add(took)
	s.plan(next)
	return next
}

// complain logs what is wrong with the looks, once an hour at most.
func (f *flow) complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && f.account.suspects.report(problems) {
		f.logger.Warn("looking at orders that have their certificates failed; trying again", zap.String("vendor", f.about.Name), zap.Error(err))
	}
}

// notice reads the entries whose turn it is, and wakes the names that need something done, such
// as those for which another server has got a certificate, or whose certificate was revoked.
func (f *flow) notice(ctx context.Context, isFirst func(string) bool) error {
	ids, err := f.ledger.RecallWithin(ctx, f.rules.watch)
	var names []string
	for _, name := range f.account.ledger.NamesOf(ids) {
		if f.site.Manages(name) {
			names = append(names, name)
		}
	}
	for _, name := range f.needy(names, isFirst) {
		if !f.busy(name) {
			f.wake(name)
		}
	}
	return err
}

// takeTurn looks at what is due: orders that may have ended, orders that have changed, and, of all
// orders, the part that has waited longest. It returns how long the turn takes: less than its part of
// the interval if another one is due, too.
func (f *flow) takeTurn(ctx context.Context, part time.Duration) (took time.Duration, err error) {
	now := f.ledger.Time()
	turns, err := f.ledger.Turns(ctx)
	if err != nil {
		return part, err
	}
	if len(turns.Parts) != watchParts {
		err := f.ledger.SetTurns(ctx, func(t *ledger.Turns) {
			t.Parts = make([]time.Time, watchParts)
			for i := range t.Parts {
				t.Parts[i] = now.Add(time.Duration(i) * (f.rules.watch - watchSlack*part) / watchParts)
			}
		})
		return part, err
	}
	// If this fails, or the look at those that have changed, the others are looked at all the same.
	_, err = f.lookAt(ctx, f.account.suspects.due(), 0)
	f.complain(ctx, err)
	f.complain(ctx, f.lookAtChanges(ctx, turns, part))
	if ctx.Err() != nil {
		return part, context.Cause(ctx)
	}
	now = f.ledger.Time() // these may have taken long
	was := slices.Clone(turns.Parts)
	var due []int
	for i, at := range was {
		// A time that is later than it can be was written by a server whose clock is ahead.
		// However wrong the clocks are, no server looks more often than it would alone.
		turn := (!now.Before(at) || at.Sub(now) > f.rules.watch) && !f.account.suspects.lately(i, f.rules.watch-(watchSlack+1)*part)
		if _, begun := f.account.suspects.reached(i); begun {
			turn, turns.Parts[i] = true, time.Time{} // it goes first
		}
		if turn && len(f.account.ledger.Certified(now, i, watchParts)) > 0 {
			due = append(due, i)
		}
	}
	if len(due) == 0 {
		return part, nil
	}
	slices.SortStableFunc(due, func(a, b int) int { return turns.Parts[a].Compare(turns.Parts[b]) })
	ids := f.account.ledger.Certified(now, due[0], watchParts)
	last, begun := f.account.suspects.reached(due[0])
	over := spread(part)
	if late := now.Sub(was[due[0]]) - watchLate*part; late > 0 && !begun {
		over = max(over-late, 0)
	}
	took = part
	if len(due) > 1 {
		took = over
	}
	apart := over / time.Duration(max(len(ids), 1)) // also for the rest of a part
	if begun {
		ids = slices.DeleteFunc(ids, func(id string) bool { return id <= last })
	}
	if len(ids) == 0 && begun {
		f.account.suspects.looks(due[0])
		return took, nil
	}
	if len(ids) == 0 {
		return took, nil // they have changed since due was made
	}
	// If this server dies, another one takes the part over.
	claim := now.Add(max(part, time.Duration(len(ids))*f.watchPace()*5/4))
	if err := f.setTurn(ctx, due[0], claim, time.Time{}); err != nil {
		return part, err
	}
	done, err := f.lookAt(ctx, ids, apart)
	if ctx.Err() != nil {
		if done > 0 {
			last = ids[done-1]
		}
		f.account.suspects.cut(due[0], last)
		// If this process ends, the next one need not wait for it.
		giving, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
		defer cancel()
		_ = f.setTurn(giving, due[0], was[due[0]], claim) // or else the claim ends by itself
		return part, context.Cause(ctx)
	}
	if err != nil && done < len(ids) {
		f.account.suspects.failed(due[0])
		return part, err
	}
	f.complain(ctx, err) // the looks that failed are repeated
	f.account.suspects.looks(due[0])
	return took, f.setTurn(ctx, due[0], now.Add(f.rules.watch-watchSlack*part), time.Time{})
}

// setTurn sets when a part is looked at next, unless something else than before is written there; zero
// is anything.
func (f *flow) setTurn(ctx context.Context, part int, at, before time.Time) error {
	return f.ledger.SetTurns(ctx, func(t *ledger.Turns) {
		if len(t.Parts) == watchParts && (before.IsZero() || t.Parts[part].Equal(before)) {
			t.Parts[part] = at
		}
	})
}

// lookAtChanges asks the vendor which orders have changed, where it tells, and looks at those.
func (f *flow) lookAtChanges(ctx context.Context, turns ledger.Turns, part time.Duration) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = f.panicked("asking which orders have changed", v)
		}
	}()
	lister, ok := f.vendor.(vendors.ChangeLister)
	now := f.ledger.Time()
	if !ok || now.Before(turns.Changes) && turns.Changes.Sub(now) <= f.rules.watch {
		return nil
	}
	if f.account.suspects.askedLately(f.rules.watch - 2*part) {
		return nil // by a clock that is wrong, it was not
	}
	if len(f.account.ledger.Certified(now, 0, 1)) == 0 {
		return nil
	}
	// If it fails, or this server dies, it is asked for again.
	if err := f.ledger.SetTurns(ctx, func(t *ledger.Turns) { t.Changes = now.Add(2 * part) }); err != nil {
		return err
	}
	since := turns.Since
	if since.IsZero() || since.After(now) {
		since = now.Add(-f.rules.watch)
	}
	changed, err := lister.Changed(ctx, since.Add(-ledger.ClockSkew))
	switch {
	case errors.Is(err, vendors.ErrUndecidable):
		f.logger.Warn("the vendor cannot list all orders that have changed; looking at each order", zap.String("vendor", f.about.Name), zap.Error(err))
		f.account.suspects.rush(f.rules.watch)
	case err != nil:
		return err
	default:
		_, failed := f.lookAt(ctx, f.account.ledger.Ordered(now, changed), 0)
		if ctx.Err() != nil {
			return failed
		}
		f.complain(ctx, failed) // each is looked at in its part, too
	}
	f.account.suspects.asks()
	rush := err != nil
	return f.ledger.SetTurns(ctx, func(t *ledger.Turns) {
		t.Since, t.Changes = now, now.Add(f.rules.watch-part)
		for i := range t.Parts {
			if at := now.Add(time.Duration(i) * part); rush && at.Before(t.Parts[i]) {
				t.Parts[i] = at
			}
		}
	})
}

// watchPace is the shortest time between two looks at the moment.
func (f *flow) watchPace() time.Duration {
	pace := f.about.Pace.Watch
	if pace <= 0 {
		pace = watchPace
	}
	switch {
	case f.account.purchases.underWay() > 0:
		pace *= watchYield
	case f.account.suspects.rushes():
		pace /= watchRush
	}
	return pace
}

// lookAt looks at the orders of the entries, no faster than watchPace, and begins each look at least
// the given time after the one before it, up to watchAtOnce of them at a time. It fails if
// watchFailures looks in a row, or all of them, get no answer from the vendor, or if all looks panic,
// but not for what the vendor says of one order, nor because the looks at some panic. Of the entries,
// the first done were looked at.
func (f *flow) lookAt(ctx context.Context, ids []string, apart time.Duration) (done int, err error) {
	r := &lookRound{f: f, looked: make([]bool, len(ids))}
	slots := make(chan struct{}, watchAtOnce)
	var looks sync.WaitGroup
	var began time.Time
	for i, id := range ids {
		if i > 0 && poll.Wait(ctx, max(apart, f.watchPace())-time.Since(began)) != nil {
			break
		}
		slots <- struct{}{}
		if ctx.Err() != nil || r.over() {
			break
		}
		began = time.Now()
		looks.Go(func() {
			err := f.inspect(ctx, id)
			r.note(ctx, i, id, err)
			<-slots
		})
	}
	looks.Wait()
	if done = slices.Index(r.looked, false); done < 0 {
		done = len(ids)
	}
	if ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	return done, r.err
}

// lookRound is what has come of looks at orders.
type lookRound struct {
	f *flow

	mu               sync.Mutex
	looked           []bool // by the index of the entry
	failed, panicked int    // the former in a row
	err              error  // why no other one is begun
}

func (r *lookRound) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil
}

// note notes what has come of a look.
func (r *lookRound) note(ctx context.Context, i int, id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return // it was cut short
	}
	missed := false
	switch {
	case err == nil:
		r.failed = 0
	case vendors.VerdictOf(err) == vendors.Permanent && !errors.Is(err, vendors.ErrCredential):
		r.failed = 0 // the vendor answers; it is about this order only
		r.f.complain(ctx, err)
	case errors.Is(err, errPanicked):
		r.panicked++
		if r.panicked == len(r.looked) {
			r.err = err
		}
	default:
		missed = true
		r.failed++
		if r.failed == min(watchFailures, len(r.looked)) {
			r.err = err
		}
	}
	r.looked[i] = true
	r.f.account.suspects.missed(id, missed)
	if err != nil {
		r.f.logger.Debug("looking at an order failed", zap.String("entry", id), zap.Error(err))
	}
}

// inspect looks at one order, and writes down what has become of it. Names for which that leaves
// something to do are woken. A panic is logged, and counts as an error of this order.
func (f *flow) inspect(ctx context.Context, id string) (err error) {
	release, ok := f.account.drive(id)
	if !ok {
		return nil // a round is at it
	}
	defer release()
	var orderID string
	defer func() {
		if v := recover(); v != nil {
			err = f.panicked("looking at order "+orderID, v, zap.String("entry", id), zap.String("order_id", orderID))
		}
	}()
	e, err := f.ledger.Load(ctx, id) // another server may have gone on with it
	if errors.Is(err, fs.ErrNotExist) {
		f.account.suspects.clear(id)
		return nil
	}
	if err != nil {
		return err
	}
	orderID = e.OrderID
	if e.State != ledger.Issued || e.Flag != nil || e.LostCertificate() || e.Over(f.ledger.Time()) {
		f.account.suspects.clear(id)
		return nil
	}
	look := f.vendor.Status
	if w, ok := f.vendor.(vendors.Watcher); ok {
		look = w.Look
	}
	order, err := look(ctx, e.OrderID)
	if errors.Is(err, vendors.ErrNotFound) {
		f.account.suspects.clear(id)
	}
	if err != nil {
		return fmt.Errorf("looking at order %s: %w", e.OrderID, err)
	}
	change, tell := f.judge(e, order)
	if change == nil {
		return nil
	}
	next, err := f.ledger.Write(ctx, e, change)
	if errors.Is(err, ledger.ErrConflict) {
		return nil // whoever was faster goes on
	}
	if err != nil {
		return err
	}
	tell(f.logger.With(zap.Strings("identifiers", e.Names), zap.String("vendor", f.about.Name), zap.String("order_id", e.OrderID)))
	if next.State == ledger.Issued && !next.LostCertificate() {
		return nil
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(next.Names, next.Covered)))) {
		if f.has(ctx, name) {
			f.wake(name)
		}
	}
	return nil
}

// panicked logs a panic in a look, once an hour at most, and makes an error of it.
func (f *flow) panicked(doing string, v any, about ...zap.Field) error {
	if f.account.suspects.report(panics) {
		f.logger.Error("panic while looking at an order that has its certificate; trying again later",
			append(about, zap.String("vendor", f.about.Name), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))...)
	}
	return fmt.Errorf("%s: %w", doing, errPanicked)
}

// has reports whether a name is to have a certificate of its own: the configuration has it, or a
// stranger has asked for it and there is one. Others of the same certificate need none.
func (f *flow) has(ctx context.Context, name string) bool {
	if f.site.Manages(name) {
		return true
	}
	_, _, err := f.site.Stored(ctx, name)
	return err == nil || isTorn(err)
}

// judge returns the change to an entry that has its certificate, after a look at its order, and
// how to log the change; nil if nothing changes.
func (f *flow) judge(e *ledger.Entry, order vendors.Order) (change func(*ledger.Entry), tell func(*zap.Logger)) {
	serial := order.Serial
	if got, err := buildChain(order.Certificates, nil); err == nil || got != nil {
		serial = serialOf(got.leaf())
	}
	ours := serial == "" || serial == e.Certificate.Serial
	switch {
	case order.Status == vendors.StatusRevoked, order.Status == vendors.StatusIssued && order.CertificateRevoked && ours:
		// If the whole order was revoked, the reissue is refused, and then a person is asked.
		f.account.suspects.clear(e.ID)
		reason := fmt.Sprintf("its certificate was revoked (%s)", order.Describe())
		return func(e *ledger.Entry) { e.Certificate.Lost, e.Problem = true, reason }, func(log *zap.Logger) {
			log.Error("the certificate of a paid order was revoked, so clients that check revocation refuse it; "+
				"it is served until it is replaced, free of charge, by one for a new key",
				zap.String("serial", e.Certificate.Serial), zap.String("status", order.Describe()))
		}
	case order.Status == vendors.StatusReplaced, order.Status == vendors.StatusIssued && !ours:
		f.account.suspects.clear(e.ID)
		problem := "the vendor has another certificate in place of ours"
		if serial != "" && !ours {
			problem += ", serial " + serial
		}
		if e.Problem == problem {
			return nil, nil
		}
		return func(e *ledger.Entry) { e.Problem = problem }, func(log *zap.Logger) {
			log.Warn("somebody has had a paid order reissued elsewhere; its earlier certificate is still served, and the CA may revoke it soon",
				zap.String("serial", e.Certificate.Serial), zap.String("serial_elsewhere", serial), zap.String("status", order.Describe()))
		}
	case order.Status.Ended():
		if order.Status == vendors.StatusExpired && e.Ends.Sub(f.ledger.Time()) <= e.Margin(f.margin(e)) {
			f.account.suspects.clear(e.ID)
			return nil, nil // it was about to end, and its successor is taken care of
		}
		if !f.account.suspects.confirmed(e.ID, string(order.Status), min(confirmAfter, f.rules.watch)) {
			return nil, nil
		}
		problem := "the order has ended: " + order.Describe()
		return func(e *ledger.Entry) { e.State, e.Problem, e.Attempt.Challenges = ledger.Open, problem, nil }, func(log *zap.Logger) {
			log.Error("a paid order has ended though its certificate was issued; it needs a decision", zap.String("status", order.Describe()))
		}
	}
	return f.judgeTerm(e, order)
}

// judgeTerm follows the vendor's word about the end of the term. An earlier end must be told
// for confirmTermAfter, because it lets the next order be placed sooner; and it cannot be past
// while the order lives.
func (f *flow) judgeTerm(e *ledger.Entry, order vendors.Order) (change func(*ledger.Entry), tell func(*zap.Logger)) {
	ends := order.TermEnds.UTC()
	if order.TermEnds.IsZero() || ends.Equal(e.Ends) || order.Status != vendors.StatusIssued {
		f.account.suspects.clear(e.ID)
		return nil, nil
	}
	if ends.Before(e.Ends) {
		if !ends.After(f.ledger.Time()) {
			f.account.suspects.clear(e.ID)
			return nil, nil
		}
		if !f.account.suspects.confirmed(e.ID, ends.String(), confirmTermAfter) {
			return nil, nil
		}
	}
	f.account.suspects.clear(e.ID)
	before := e.Ends
	return func(e *ledger.Entry) { e.Ends = ends }, func(log *zap.Logger) {
		log.Info("the vendor has changed the end of the paid term", zap.Time("before", before), zap.Time("term_ends", ends))
	}
}
