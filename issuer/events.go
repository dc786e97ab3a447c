package issuer

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The events that handlers of Caddy's events app are told of. docs/events.md has their data.
const (
	eventOrderPlaced       = "commercial_order_placed"
	eventValidationWaiting = "commercial_validation_waiting"
	eventValidationPassed  = "commercial_validation_passed"
	eventValidationFailed  = "commercial_validation_failed"
	eventValidationDelayed = "commercial_validation_delayed"
	eventIssued            = "commercial_issued"
	eventReissued          = "commercial_reissued"
	eventFlagged           = "commercial_flagged"
	eventRevoked           = "commercial_revoked"
	eventTermEnding        = "commercial_term_ending"
	eventSpendLimit        = "commercial_spend_limit_reached"
	eventPriceChanged      = "commercial_price_changed"
)

// written tells metrics and handlers of events what has changed about an entry. It is called by
// the ledger.
func (f *flow) written(before, after *ledger.Entry) {
	if before == nil {
		before = new(ledger.Entry)
	}
	gave := after.Certificate != nil && (before.Certificate == nil || before.Certificate.Serial != after.Certificate.Serial)
	if charged(before, after) {
		metrics.Charges.WithLabelValues(f.about.Name).Inc()
		f.tell(eventOrderPlaced, after, map[string]any{
			"product": after.Product, "reference": after.Attempt.Reference, "term_ends": timeText(after.Ends),
		})
	}
	f.tellValidation(before, after, gave)
	switch {
	case !gave || after.Attempt.Kind == ledger.KindAdoption: // that is for a key of somebody else
	case before.Issued > 0:
		f.tell(eventReissued, after, certificateData(after))
	default:
		if !after.Adopted {
			metrics.OrderSeconds.WithLabelValues(f.about.Name).Observe(max(0, after.Updated.Sub(after.Paid).Seconds()))
		}
		f.tell(eventIssued, after, certificateData(after))
	}
	if after.DeadCertificate() && (gave || !before.DeadCertificate()) {
		f.tell(eventRevoked, after, map[string]any{"serial": after.Certificate.Serial, "reason": after.Problem})
	}
	if after.Flag != nil && before.Flag == nil {
		f.tell(eventFlagged, after, map[string]any{"reason": after.Flag.Reason, "portal": f.about.Portal})
	}
}

// charged reports whether the change is that the vendor has acknowledged a paid order: whoever has
// placed it, and whether it was answered or looked up, its ID is entered once.
func charged(before, after *ledger.Entry) bool {
	return before.RootID == "" && after.RootID != "" && after.Attempt.Kind == ledger.KindOrder
}

// awaitsValidation reports whether the CA has yet to look at proofs of control.
func awaitsValidation(e *ledger.Entry) bool {
	return e.State == ledger.Open && len(e.Attempt.Challenges) > 0
}

// tellValidation tells how the validation of names goes, as far as the change of an entry shows.
func (f *flow) tellValidation(before, after *ledger.Entry, gave bool) {
	waited, kind := awaitsValidation(before), string(before.Attempt.Kind)
	if awaitsValidation(after) && (!waited || before.Attempt.Reference != after.Attempt.Reference) {
		f.account.validates(after.Attempt.Reference)
		f.tell(eventValidationWaiting, after, map[string]any{"kind": string(after.Attempt.Kind), "method": string(after.Method)})
	}
	if why, was := after.Attempt.Unproven, before.Attempt.Unproven; why != nil && (was == nil || was.Cause != why.Cause || was.Name != why.Name) {
		said, _, _, _ := f.account.lookedAt(after.Attempt.Reference)
		f.tell(eventValidationDelayed, after, map[string]any{
			"kind": string(after.Attempt.Kind), "cause": why.Cause, "name": why.Name, "reason": why.Reason, "said": said,
		})
	}
	ended := after.Flag != nil && after.Flag.Ended && (before.Flag == nil || !before.Flag.Ended)
	over := gave || ended || after.State == ledger.Issued || after.State == ledger.Gone
	if !waited || !over {
		return
	}
	switch told := f.account.endValidation(before.Attempt.Reference); {
	case told: // that it has passed
	case gave:
		f.tell(eventValidationPassed, after, map[string]any{"kind": kind})
	default:
		f.tell(eventValidationFailed, after, map[string]any{"kind": kind, "reason": after.Problem})
	}
}

// validated tells if all names of an order are validated; the certificate may still take long.
// Only the server that told of the waiting tells so, once.
func (f *flow) validated(e *ledger.Entry, order vendors.Order) {
	open := slices.ContainsFunc(order.Names, func(n vendors.NameStatus) bool { return !n.Verified })
	if len(order.Names) > 0 && !open && f.account.passValidation(e.Attempt.Reference) {
		f.tell(eventValidationPassed, e, map[string]any{"kind": string(e.Attempt.Kind)})
	}
}

func certificateData(e *ledger.Entry) map[string]any {
	return map[string]any{"serial": e.Certificate.Serial, "not_after": timeText(e.Certificate.NotAfter), "term_ends": timeText(e.Ends)}
}

// tell emits an event about an order to the handlers.
func (f *flow) tell(event string, e *ledger.Entry, data map[string]any) {
	data["order_id"], data["entry"] = e.OrderID, e.ID
	f.tellOf(event, e.Names, data)
}

// tellOf emits an event about names to the handlers, if there are any.
func (f *flow) tellOf(event string, names []string, data map[string]any) {
	if f.emit == nil {
		return
	}
	data["vendor"], data["account"], data["names"] = f.about.Name, f.about.Account, strings.Join(names, ", ")
	f.emit(event, data)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// tellLimit tells that a name has to wait because the spending limit is reached, once per span.
func (f *flow) tellLimit(name string, limit *SpendLimitError) {
	per := time.Duration(f.rules.spend.Per)
	if f.account.reachLimit(per) {
		f.tellOf(eventSpendLimit, []string{name}, map[string]any{
			"orders": f.rules.spend.Orders, "per": per.String(), "next": timeText(limit.Next),
		})
	}
}

// termWarnings are how long before the end of a paid term handlers are told of it, the longest
// first.
var termWarnings = []time.Duration{30 * 24 * time.Hour, 7 * 24 * time.Hour}

// termWarning returns which of termWarnings is due for a term, zero if none. For a short term, only
// those within its second half count.
func termWarning(paid, ends, now time.Time) (due time.Duration) {
	for _, before := range termWarnings {
		if ends.Sub(now) <= before && 2*before <= ends.Sub(paid) {
			due = before
		}
	}
	return due
}

// tellTerms tells of the paid terms that are about to end without a newer order.
func (f *flow) tellTerms(ctx context.Context) {
	if f.emit == nil {
		return
	}
	now := f.ledger.Time()
	ending := f.account.ledger.Ending(now, now.Add(termWarnings[0]))
	f.account.forgetWarnings(ending)
	for _, b := range ending {
		due := termWarning(b.Paid, b.Ends, now)
		if due == 0 || f.account.warned(b.ID, due) || !slices.ContainsFunc(b.Names, f.site.Manages) {
			continue
		}
		e, err := f.ledger.Load(ctx, b.ID)
		if err != nil {
			continue // next time
		}
		if f.account.warn(b.ID, due) {
			f.tell(eventTermEnding, e, map[string]any{"days": int(due.Hours() / 24), "term_ends": timeText(e.Ends)})
		}
	}
}

// told is what handlers have been told of by this process, so that they are told once. It is
// protected by the mutex of the account.
type told struct {
	validations map[string]bool          // by the reference of an attempt that waits; true if it has passed
	terms       map[string]time.Duration // by the ID of an entry, the latest of termWarnings
	limit       time.Time                // when the spending limit was reached; monotonic
}

// validates notes that handlers are told that an attempt waits for its validation.
func (a *account) validates(reference string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told.validations == nil {
		a.told.validations = make(map[string]bool)
	}
	a.told.validations[reference] = false
}

// passValidation notes that an attempt has passed its validation, and reports whether handlers are
// to be told of that.
func (a *account) passValidation(reference string) (tell bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	passed, waits := a.told.validations[reference]
	if tell = waits && !passed; tell {
		a.told.validations[reference] = true
	}
	return tell
}

// endValidation forgets an attempt that is over, and reports whether it had passed.
func (a *account) endValidation(reference string) (passed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	passed = a.told.validations[reference]
	delete(a.told.validations, reference)
	return passed
}

// warned reports whether handlers were told that a term ends, that long before or later.
func (a *account) warned(id string, before time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.told.warned(id, before)
}

func (t *told) warned(id string, before time.Duration) bool {
	last, warned := t.terms[id]
	return warned && last <= before
}

// warn notes that handlers are told that a term ends, and reports whether they were not yet.
func (a *account) warn(id string, before time.Duration) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told.warned(id, before) {
		return false
	}
	if a.told.terms == nil {
		a.told.terms = make(map[string]time.Duration)
	}
	a.told.terms[id] = before
	return true
}

// forgetWarnings forgets the terms that are not about to end any more.
func (a *account) forgetWarnings(ending []ledger.EndingTerm) {
	ids := make(map[string]struct{}, len(ending))
	for _, b := range ending {
		ids[b.ID] = struct{}{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.told.terms, func(id string, _ time.Duration) bool {
		_, still := ids[id]
		return !still
	})
}

// reachLimit notes that the spending limit is reached, and reports whether that is the first time
// within the span.
func (a *account) reachLimit(per time.Duration) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first = a.told.limit.IsZero() || time.Since(a.told.limit) >= per; first {
		a.told.limit = time.Now()
	}
	return first
}
