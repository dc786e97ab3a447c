package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// maxUnknown is how many times in a row a vendor must deny knowing an order that the
// ledger has before a person is asked. A fresh order can take a moment to appear.
const maxUnknown = 5

// follow looks once at an order that has no certificate yet. What is paid for is looked at
// for as long as it takes: an answer that looks final slows the pace, and ends nothing.
func (f *flow) follow(ctx context.Context, j *errand, e *ledger.Entry) move {
	look := f.account.look(e.Attempt.Reference)
	fresh := look.schedule.Min == 0
	if fresh {
		look.schedule = poll.Schedule{Min: f.rules.pace.Min, Max: f.rules.pace.Max}
		look.nudge = nudges{every: nudgeAfter * f.rules.pace.Min, last: time.Now()}
		if !f.predicts(e) {
			// The proofs were presented only after the order, so the CA cannot have
			// found them by itself.
			look.nudge.every = 0
		}
		// The more orders are looked at before this one, the longer its waits, too.
		look.turn = f.account.takeUp(e.Attempt.Started)
		look.schedule.Min = min(max(look.schedule.Min, time.Until(look.turn)), look.schedule.Max)
	}
	if time.Since(e.Attempt.Started) > f.rules.pace.Fresh {
		look.schedule.Max = f.rules.pace.Slow
	}
	if left := time.Until(look.next); left > 0 && look.by != j.name {
		return ends(progress{err: f.pending(e, look.by+" waits for it, too"), wait: left + f.rules.pace.Min})
	}
	f.present(ctx, j, e)
	if left := time.Until(look.turn); left > 0 {
		return ends(progress{err: f.pending(e, "it is looked at in its turn"), wait: left})
	}
	order, err := f.vendor.Status(ctx, e.OrderID)
	if ctx.Err() != nil {
		return ends(progress{err: context.Cause(ctx)})
	}
	said := order.Describe()
	if err != nil {
		said = err.Error()
	}
	f.account.looked(look, said)
	switch {
	case errors.Is(err, vendors.ErrNotFound):
		if look.unknown++; look.unknown >= maxUnknown {
			return f.flag(e, fmt.Sprintf("%s does not know order %s; is it another account? (%v)", f.about.Name, e.OrderID, err))
		}
		return f.wait(j, e, look, err)
	case err != nil:
		return f.wait(j, e, look, fmt.Errorf("asking for the status of order %s: %w", e.OrderID, err))
	}
	look.unknown = 0
	if !order.Status.Ended() {
		look.ended = nil
	}
	switch {
	case order.Status == vendors.StatusIssued:
		return f.certified(ctx, j, e, look, order)
	case order.Status.Ended():
		return f.ended(ctx, j, e, order)
	}
	j.log.Debug("order is pending", zap.String("order_id", e.OrderID), zap.String("status", order.RawStatus), zap.String("detail", said))
	if asked := f.presentable(e, order.Challenges); asked != nil {
		if len(e.Attempt.Challenges) > 0 {
			j.log.Warn("the vendor asks for other proofs of control than expected; presenting what it asks for",
				zap.String("order_id", e.OrderID), zap.Int("expected", len(e.Attempt.Challenges)), zap.Int("asked", len(asked)))
		}
		// Written down before it is presented, which the next step does.
		return move{change: func(e *ledger.Entry) { e.Attempt.Challenges = asked }}
	}
	f.validated(e, order)
	f.recheck(ctx, j, e, look, order)
	why, changed := f.explain(ctx, j, e, look, order)
	if why != nil {
		said += "; " + why.Reason
	} else {
		said = f.seen(said, e)
	}
	end := progress{err: f.pending(e, said), wait: f.account.later(look, j.name, look.schedule.Next(f.jitter))}
	if !changed {
		return ends(end)
	}
	return move{change: func(e *ledger.Entry) { e.Attempt.Unproven = why }, done: &end}
}

// wait ends a round with an order about which the vendor told nothing useful.
func (f *flow) wait(j *errand, e *ledger.Entry, look *look, err error) move {
	wait := look.schedule.Next(f.jitter)
	if v, ok := errors.AsType[*vendors.Error](err); ok {
		wait = min(max(wait, v.RetryAfter), max(f.rules.pace.Max, retryMin))
		if v.Verdict == vendors.Permanent && !errors.Is(err, vendors.ErrNotFound) {
			// It looks final, but may be a moment's fault of an account that is paid.
			if look.slow.Min == 0 {
				look.slow = poll.Schedule{Min: retryMin, Max: retryMax}
			}
			wait = look.slow.Next(f.jitter)
		}
	}
	if time.Since(look.reported) > time.Hour {
		look.reported = time.Now()
		j.log.Warn("asking for the status of an order failed", zap.String("order_id", e.OrderID), zap.Error(err), zap.Duration("wait", wait))
	}
	return ends(progress{err: f.pending(e, err.Error()), wait: f.account.later(look, j.name, wait)})
}

// seen adds to a description of an order who came for its proofs.
func (f *flow) seen(text string, e *ledger.Entry) string {
	if who := f.prove.Seen(f.proofOf(e)); who != "" {
		text += "; " + who
	}
	return text
}

// certified deals with an order that the vendor says has a certificate.
func (f *flow) certified(ctx context.Context, j *errand, e *ledger.Entry, look *look, order vendors.Order) move {
	got, err := f.chainOf(e, order)
	switch {
	case order.CertificateRevoked && (err == nil || e.Attempt.Kind != ledger.KindReissue):
		return f.certificateRevoked(ctx, j, e, order)
	case err == nil:
		if !e.LostCertificate() { // otherwise the CA may revoke the new one, too
			f.account.reissued(e.ID)
		}
		return f.recordCertificate(j, e, order, got)
	}
	if f.settled(e, look) {
		// By now the request cannot be on its way any more. If the vendor gives the same answer
		// several times in a row, it stands.
		switch other, otherErr := f.foreignChain(e, order); {
		case otherErr != nil:
		case e.Certificate != nil && serialOf(other.leaf()) == e.Certificate.Serial:
			if look.stale++; look.stale >= maxUnknown {
				return f.reissueFailed(ctx, e, errWithdrawn)
			}
		default:
			if look.stale++; look.stale >= maxUnknown {
				return f.recordUseless(j, e, order, other, err)
			}
		}
	}
	move := f.wait(j, e, look, fmt.Errorf("the vendor delivered a certificate that cannot be used: %w", err))
	if f.ledger.Time().Sub(e.Attempt.Started) > flagAfter && e.Flag == nil {
		return f.flag(e, move.done.err.Error())
	}
	return move
}

// recordUseless notes the unusable certificate that a reissue gave, such as one for another key.
// The order is reissued again.
func (f *flow) recordUseless(j *errand, e *ledger.Entry, order vendors.Order, got chain, why error) move {
	m := f.recordCertificate(j, e, order, got)
	record := m.change
	if record == nil {
		return m
	}
	return move{
		change: func(e *ledger.Entry) {
			record(e)
			e.Problem = why.Error()
		},
		wakes: true, done: &progress{err: reissueError(e, why)},
	}
}

// errRevoked is the cause of a reissue that would not be needed otherwise.
var errRevoked = errors.New("its certificate was revoked, and the order is still active, so it is reissued")

// certificateRevoked deals with an order that lives on though its certificate was revoked
// before it was of any use. It is reissued, free of charge, but not again and again: if the
// new certificate is revoked, too, or if the vendor does not show the revoked one, a person is
// asked. If that person says that the order is good, it is reissued once more.
func (f *flow) certificateRevoked(ctx context.Context, j *errand, e *ledger.Entry, order vendors.Order) move {
	if e.Attempt.Kind == ledger.KindReissue && !e.Attempt.AnyKey { // with it, a person has looked
		return f.flag(e, fmt.Sprintf("the certificate of the reissue of order %s was revoked at once", e.OrderID))
	}
	got, err := f.foreignChain(e, order)
	if err != nil {
		return f.ended(ctx, j, e, order)
	}
	m := f.recordCertificate(j, e, order, got)
	record := m.change
	if record == nil {
		return m
	}
	j.log.Warn("the certificate of a paid order was revoked; reissuing it", zap.String("order_id", e.OrderID))
	return move{change: func(e *ledger.Entry) {
		record(e)
		e.Certificate.Lost, e.Problem = true, errRevoked.Error()
	}}
}

// recordCertificate notes the certificate that the latest request gave.
func (f *flow) recordCertificate(j *errand, e *ledger.Entry, order vendors.Order, got chain) move {
	leaf := got.leaf()
	key, err := keyID(leaf.PublicKey)
	if err != nil {
		return ends(progress{err: err})
	}
	f.account.keepChain(got)
	j.log.Info("certificate issued", zap.String("order_id", e.OrderID),
		zap.Strings("names", leaf.DNSNames), zap.String("serial", serialOf(leaf)), zap.Time("not_after", leaf.NotAfter))
	if e.Issued == 0 && firstName(leaf) != e.Names[0] {
		j.log.Warn("the certificate's first name is not the one that was ordered first", zap.String("order_id", e.OrderID),
			zap.String("first_name", firstName(leaf)), zap.String("ordered", e.Names[0]))
	}
	f.tellLostUse(j, e, leaf)
	// An order that gives another certificate after the revocation of one is alive. An order that
	// was to be cancelled, or whose revocation waits for approval, may still end.
	revoked := e.EndedByHand == ledger.Revoked && e.DeadCertificate()
	return move{change: func(e *ledger.Entry) {
		e.State, e.Flag, e.Problem, e.Attempt.Unproven = ledger.Issued, nil, "", nil
		e.Covered = lowered(leaf.DNSNames)
		e.Certificate = &ledger.Certificate{
			Serial: serialOf(leaf), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), Key: key, Reference: e.Attempt.Reference,
		}
		e.Issued++
		if revoked {
			e.EndedByHand = ""
		}
		if !order.TermEnds.IsZero() {
			e.Ends = order.TermEnds.UTC()
		}
		if order.CAOrderID != "" {
			e.CAOrderID = order.CAOrderID
		}
	}, wakes: true}
}

// tellLostUse warns if a certificate that is not for clients replaces one that was. From 2027 on,
// CAs issue no more certificates for both servers and clients.
func (f *flow) tellLostUse(j *errand, e *ledger.Entry, leaf *x509.Certificate) {
	before := f.site.Served(j.name)
	if j.have != nil {
		before = append(before, j.have)
	}
	if forClients(leaf) || !slices.ContainsFunc(before, func(old *x509.Certificate) bool {
		return forClients(old) && f.account.ledger.HasSerial(j.name, serialOf(old))
	}) {
		return
	}
	j.log.Warn("the certificate does not have clientAuth, which the one before had: whatever presents it to other servers as a client (mTLS) is refused from now on",
		zap.Strings("identifiers", e.Names), zap.String("order_id", e.OrderID), zap.String("serial", serialOf(leaf)))
}

func forClients(leaf *x509.Certificate) bool {
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// chainOf picks and judges the certificate of an issued order.
func (f *flow) chainOf(e *ledger.Entry, order vendors.Order) (chain, error) {
	var key any
	if len(e.Attempt.CSR) > 0 {
		csr, err := x509.ParseCertificateRequest(e.Attempt.CSR)
		if err != nil {
			return nil, fmt.Errorf("parsing the CSR in the ledger: %w", err)
		}
		key = csr.PublicKey
	}
	got, err := buildChain(order.Certificates, key)
	if err != nil && (e.Attempt.Kind == ledger.KindAdoption || e.Attempt.AnyKey) {
		return f.foreignChain(e, order)
	}
	if err != nil {
		return nil, err
	}
	if e.Attempt.Kind == ledger.KindAdoption {
		return f.foreignChain(e, order)
	}
	old := ""
	if c := e.Certificate; c != nil && e.State != ledger.Issued && e.Attempt.Kind == ledger.KindReissue {
		old = c.Serial
	}
	return got, checkCertificate(got, e.Names, old, time.Now())
}

// errWithdrawn is the cause if a reissue is no longer on its way.
var errWithdrawn = errors.New("the vendor delivers the old certificate and is making no other; was the reissue withdrawn?")

// settled reports whether the latest request of an entry is a reissue that must have begun
// by now. It goes by what this process has seen, as another server's clock has written when it was sent.
func (f *flow) settled(e *ledger.Entry, look *look) bool {
	return e.Attempt.Kind == ledger.KindReissue && time.Since(look.first) >= f.about.AbsenceAge
}

// foreignChain picks the certificate of an order where that need not be for a key of ours, and
// may have expired. Usually nothing can be done with it but to reissue the order.
func (f *flow) foreignChain(e *ledger.Entry, order vendors.Order) (chain, error) {
	got, err := buildChain(order.Certificates, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range e.Names {
		if err := got.leaf().VerifyHostname(name); err != nil {
			return nil, fmt.Errorf("%w: it is not for %s but for %s", errWrongCertificate, name, strings.Join(got.leaf().DNSNames, ", "))
		}
	}
	return got, nil
}

// ended deals with an order that will not give a certificate.
func (f *flow) ended(ctx context.Context, j *errand, e *ledger.Entry, order vendors.Order) move {
	a, reason := e.Attempt, order.Describe()
	if a.Unproven != nil {
		reason += "; " + a.Unproven.Reason
	}
	word, look := order.Status, f.account.look(a.Reference)
	if a.Kind == ledger.KindReissue && a.PreviousID != "" && a.PreviousID != e.OrderID && e.Certificate != nil {
		// The reissue failed; the order it was for may be as good as before.
		old, err := f.vendor.Status(ctx, a.PreviousID)
		switch {
		case ctx.Err() != nil:
			return ends(progress{err: context.Cause(ctx)})
		case err != nil:
			m := f.wait(j, e, look, fmt.Errorf("asking for the status of order %s, whose reissue has ended (%s): %w", a.PreviousID, reason, err))
			if f.ledger.Time().Sub(a.Started) > flagAfter && e.Flag == nil {
				return f.flag(e, m.done.err.Error())
			}
			return m
		case old.Status == vendors.StatusIssued:
			look.ended = nil
			j.log.Error("a reissue was refused; the paid order stands", zap.String("order_id", a.PreviousID), zap.String("reason", reason))
			problem := "reissue refused: " + reason
			return move{
				change: func(e *ledger.Entry) {
					e.OrderID, e.State, e.Flag, e.Problem = a.PreviousID, ledger.Issued, nil, problem
				},
				done: &progress{err: fmt.Errorf("the reissue of order %s at %s for %s was refused: %s", a.PreviousID, f.about.Name, e.Names[0], reason)},
			}
		}
		// That the reissue has ended tells nothing about the order or its certificate.
		word = old.Status
		reason = fmt.Sprintf("%s; order %s, whose reissue it was: %s", reason, a.PreviousID, old.Describe())
	}
	if look.ended != nil && look.ended.says != word {
		look.ended = nil
	}
	m := f.flagEnded(e, e.WhyEnded(reason))
	dead := e.Certificate != nil && (word == vendors.StatusRevoked || word == vendors.StatusCancelled)
	if dead {
		now, again := f.mayGiveUp(ctx, j, e, word)
		if now {
			return f.giveUp(j, e, reason)
		}
		if again > 0 {
			m.done.wait = again
			m.done.err = noRetry(&DeadOrderError{f.about.Name, f.about.Portal, e.Names, e.OrderID, reason, e.Ends, true})
		}
	}
	if change := m.change; change != nil || dead && (!e.Certificate.Lost || e.Certificate.Unwanted) || len(e.Attempt.Challenges) > 0 {
		m.change = func(e *ledger.Entry) {
			if change != nil {
				change(e)
			}
			if dead {
				e.Certificate.Lost, e.Certificate.Unwanted = true, false
			}
			e.Attempt.Challenges = nil // nobody comes for them any more
		}
	}
	return m
}

// replaceAfter is for how long the vendor must have said that an order has ended before another
// one may be paid for in its place. It is asked a few times meanwhile.
const replaceAfter = time.Hour

// mayGiveUp reports whether an order that had given a certificate before the vendor ended it is
// to be given up, so that another one can be bought. The configuration must allow it, no person may
// have ended the order, and for replaceAfter, by the monotonic clock, this process must have been
// told the same and nothing else. It is done once for each name within a term: if the order that
// took its place ends, too, a person is asked. No order is given up whose successor could not be
// bought at once, so a vendor that is wrong about thousands of orders costs no more than the
// spending limit allows. again is when to ask again, if the order may be given up then, else zero.
func (f *flow) mayGiveUp(ctx context.Context, j *errand, e *ledger.Entry, says vendors.Status) (now bool, again time.Duration) {
	look := f.account.look(e.Attempt.Reference)
	// A person who says that the order is good takes the flag away.
	if was := look.ended; was == nil || was.says != says || e.Flag == nil || !e.Flag.Since.Equal(was.flagged) {
		look.ended = &ending{says: says, first: time.Now()}
		if e.Flag != nil {
			look.ended.flagged = e.Flag.Since
		}
	}
	if !f.rules.replaceEnded {
		return false, 0
	}
	about, err := f.ledger.About(ctx, slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(e.Names), j.name))))...)
	if err != nil {
		return false, replaceAfter / 4
	}
	if !e.MayBeReplaced(about, f.ledger.Time()) {
		return false, 0
	}
	if f.mayBuy(j.name, j.want, about) != nil {
		return false, 0
	}
	if e.Flag == nil || !e.Flag.Ended || time.Since(look.ended.first) < replaceAfter {
		return false, replaceAfter / 4
	}
	if err := f.list(ctx); err != nil {
		return false, replaceAfter / 4
	}
	if !f.account.condemn(e.ID, f.ledger.Time().Add(-time.Duration(f.rules.spend.Per)), f.rules.spend.Orders) {
		return false, replaceAfter
	}
	return true, 0
}

// giveUp gives up an order that the vendor has ended.
func (f *flow) giveUp(j *errand, e *ledger.Entry, reason string) move {
	j.log.Warn("giving up a paid order that the vendor has ended; another one is placed, as replace_ended_orders allows",
		zap.String("order_id", e.OrderID), zap.String("status", reason), zap.Time("term_ends", e.Ends))
	return move{
		change: func(e *ledger.Entry) {
			e.State, e.GivenUp, e.Flag, e.Problem = ledger.Gone, true, nil, reason
			e.Certificate.Lost, e.Certificate.Unwanted = true, false
		},
		done: &progress{err: f.pending(e, "it was ended, and another one is placed"), wait: time.Second},
	}
}

// presentable returns the proofs that the vendor asks for, if they can be presented and differ
// from those expected; otherwise nil. The vendor's word wins.
func (f *flow) presentable(e *ledger.Entry, asked []vendors.Challenge) []vendors.Challenge {
	if len(asked) == 0 || sameChallenges(asked, e.Attempt.Challenges) {
		return nil
	}
	p := f.proofOf(e)
	p.Challenges = asked
	if err := proof.Check(p); err != nil {
		f.logger.Error("the vendor asks for proofs of control that cannot be presented; keeping those expected",
			zap.Strings("identifiers", e.Names), zap.String("order_id", e.OrderID), zap.Error(err))
		return nil
	}
	return asked
}

func sameChallenges(a, b []vendors.Challenge) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// predicts reports whether the attempt's challenges were known before the vendor told.
func (f *flow) predicts(e *ledger.Entry) bool {
	p, ok := f.vendor.(vendors.Predictor)
	if !ok || len(e.Attempt.CSR) == 0 {
		return false
	}
	challenges, err := p.Predict(f.request(e))
	return err == nil && len(challenges) > 0
}

// nudges paces the requests to look at the proofs again. A CA that has just looked in
// vain may remember that for minutes, so each pause is longer than the one before it.
type nudges struct {
	every time.Duration
	last  time.Time
	said  string // the vendor's words for why the last one has not helped, if it had any
}

// nudgeAfter is the first pause before a nudge, in units of the shortest poll;
// maxNudge the longest pause.
const (
	nudgeAfter = 6
	maxNudge   = 30 * time.Minute
)

func (f *flow) recheck(ctx context.Context, j *errand, e *ledger.Entry, look *look, order vendors.Order) {
	r, ok := f.vendor.(vendors.Rechecker)
	n := &look.nudge
	if !ok || time.Since(n.last) < n.every {
		return
	}
	var open []string
	for _, name := range order.Names {
		if !name.Verified {
			open = append(open, name.Name)
		}
	}
	if len(open) == 0 && len(order.Names) > 0 || len(e.Attempt.Challenges) == 0 {
		n.said = ""
		return
	}
	if len(open) == 0 {
		open = e.Names
	}
	n.last, n.every = time.Now(), min(max(2*n.every, nudgeAfter*f.rules.pace.Min), maxNudge)
	err := r.Recheck(ctx, e.OrderID, open, e.Method)
	n.said = ""
	if v, ok := errors.AsType[*vendors.Error](err); ok {
		n.said = v.Message
	}
	if err != nil && !errors.Is(err, vendors.ErrStillIssuing) {
		j.log.Warn("asking the vendor to check the proofs of control again failed", zap.String("order_id", e.OrderID), zap.Error(err))
		return
	}
	j.log.Info("asked the vendor to check the proofs of control again", zap.String("order_id", e.OrderID),
		zap.Strings("names", open), zap.String("seen", f.prove.Seen(f.proofOf(e))), zap.String("answer", n.said))
}

func lowered(names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, dcv.NormalizeHost(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
