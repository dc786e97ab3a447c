package issuer

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// room is how many orders the spending limit allows on top of those in the ledger.
func (f *flow) room() int {
	placed, _ := f.ledger.Memory.Spending(f.ledger.Time().Add(-time.Duration(f.rules.spend.Per)), 0)
	return f.rules.spend.Orders - placed
}

// mayBuy refuses a purchase that the rules do not allow, before anything else is done
// about it.
func (f *flow) mayBuy(name string, w *want, about []*ledger.Entry) error {
	if a, ok := f.adoptedFor(name); ok {
		return noRetry(fmt.Errorf("order %s, which was bought elsewhere for %s, is used up, and the option order forbids placing another one; "+
			"give the ID of a new order, or remove the option", a.ID, name))
	}
	configured, onDemand := f.site.Allows(name)
	// An issuer for all names is configured even for a name that is no longer in the config.
	if !configured || !onDemand && !f.account.asked(w, f.config) && !f.site.Manages(name) {
		return noRetry(fmt.Errorf("%s is not among the names that this configuration has certificates for, so nothing is bought for it", name))
	}
	if onDemand && !f.rules.allowOnDemand {
		return errOnDemand(name)
	}
	return f.hold(name, about)
}

// hold holds purchases for a name back for a while after some that led to nothing.
func (f *flow) hold(name string, about []*ledger.Entry) error {
	failures := 0
	var last *ledger.Entry
	for _, e := range about {
		if e.State == ledger.Gone && slices.Contains(e.Names, name) && f.ledger.Time().Sub(e.Paid) < holdMemory {
			failures++
			if last == nil || e.Paid.After(last.Paid) {
				last = e
			}
		}
	}
	if failures == 0 {
		return nil
	}
	if until := last.Paid.Add(holdFor(failures)); f.ledger.Time().Before(until) {
		return &HoldError{name, failures, until, last.Problem}
	}
	return nil
}

// holdMemory is for how long a purchase that led to nothing counts. It is longer than the
// longest hold: otherwise holds would begin anew each day with short ones.
const holdMemory = 3 * 24 * time.Hour

// holdFor is how long to hold paid calls back after so many led to nothing lately.
// After the first, another may follow at once: it is known that nothing came of it.
func holdFor(failures int) time.Duration {
	steps := []time.Duration{0, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
	return steps[min(failures-1, len(steps)-1)]
}

// withinLimit checks the spending limit.
func (f *flow) withinLimit() *SpendLimitError {
	return f.overLimit(f.rules.spend.Orders - 1)
}

// overLimit returns an error if more orders than allowed were placed within the span of the
// limit.
func (f *flow) overLimit(allowed int) *SpendLimitError {
	per := time.Duration(f.rules.spend.Per)
	placed, last := f.ledger.Memory.Spending(f.ledger.Time().Add(-per), allowed)
	if placed <= allowed {
		return nil
	}
	return &SpendLimitError{f.rules.spend, last.Add(per)}
}

// limitWait is when to look again after the spending limit was reached. What was recorded only
// a moment ago counts, but may be withdrawn, because two servers ordered for the same name.
func (f *flow) limitWait(limit *SpendLimitError) time.Duration {
	now := f.ledger.Time()
	if _, newest := f.ledger.Memory.Spending(now.Add(-time.Duration(f.rules.spend.Per)), 0); now.Sub(newest) < 2*sendBefore {
		return 2 * sendBefore
	}
	return min(limit.Next.Sub(now), time.Hour)
}

// condemnedFor is for how long an entry that is to be given up counts as such, until the ledger
// shows it.
const condemnedFor = 10 * time.Minute

// condemn reports whether an entry may be given up, and if so, notes that it is. With it, no more
// than the allowed number of entries may have been given up or paid for since from. To be safe, an
// order counts in addition to the one that it replaces.
func (a *account) condemn(id string, from time.Time, allowed int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.condemned, func(_ string, since time.Time) bool { return time.Since(since) >= condemnedFor })
	paid, _ := a.ledger.Spending(from, 0)
	count := paid + len(a.condemned)
	for _, given := range a.ledger.GivenUp(from) {
		if _, counted := a.condemned[given]; !counted {
			count++
		}
	}
	if _, again := a.condemned[id]; !again && count >= allowed {
		return false
	}
	a.condemned[id] = time.Now()
	return true
}
