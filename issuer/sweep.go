package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// certmagic asks for much, but not for everything. It is content with the certificate of
// another issuer until that is due. It renews a certificate for its first name only. It
// does not know of orders that were paid for before a restart, nor of what another server
// has stored meanwhile. So the names of the configuration are looked over from time to time.

const (
	// sweepFirst lets the servers start, and certmagic ask first.
	sweepFirst = 3 * time.Second

	// sweepEvery is how often the names are looked over. Nothing in it is urgent.
	sweepEvery = 30 * time.Minute

	// tidyEvery is how often what is left behind in storage is looked for.
	tidyEvery = 24 * time.Hour
)

// sweep looks over the names until ctx ends. Except for the first time, it leaves those alone
// that are busy: they have their own pace. isFirst is the first of needy.
func (f *flow) sweep(ctx context.Context, names func() []string, isFirst func(name string) bool) {
	tidied := time.Time{}
	first := true // the proofs of this configuration have yet to be presented
	// From sweep to sweep: any round may be the first to read what a person has settled.
	flagged := f.account.ledger.Flagged()
	for wait := sweepFirst; poll.Wait(ctx, wait) == nil; wait = sweepEvery {
		err := errors.Join(f.ledger.Refresh(ctx), f.ledger.Recall(ctx))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.logger.Warn("looking for pending orders failed", zap.String("vendor", f.about.Name), zap.Error(err))
		}
		if !f.account.ledger.Listed() {
			continue
		}
		// What can be read is gone on with, though another entry cannot.
		for _, e := range flagged {
			if !f.account.ledger.Asks(e.ID) {
				// A person has settled what its names have waited for.
				for _, name := range e.Names {
					f.wake(name)
				}
			}
		}
		flagged = f.account.ledger.Flagged()
		for _, name := range f.needy(names(), isFirst) {
			if first || !f.busy(name) {
				f.wake(name)
			}
		}
		first = false
		f.tellTerms(ctx)
		if err == nil && time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			f.account.tidyReissues()
			f.tidy(ctx)
			f.tidyKeys(ctx)
			if f.rules.prices {
				f.watchPrice(ctx)
			}
			if err := f.ledger.Sweep(ctx, time.Duration(f.rules.spend.Per)); err != nil {
				f.logger.Warn("moving old ledger entries failed", zap.String("vendor", f.about.Name), zap.Error(err))
			}
		}
	}
}

// needy returns the names for which something has to be done, judging from memory alone. first
// reports whether this issuer is the first of the name's policy: if not, a certificate of
// another issuer is as good.
func (f *flow) needy(names []string, first func(string) bool) []string {
	var needy []string
	now := f.ledger.Time()
	for _, name := range names {
		served := f.site.Served(name)
		serve := slices.DeleteFunc(f.account.ledger.About(name), func(b *ledger.Brief) bool { return !b.Serves(name, now) })
		if f.needs(name, served, serve, first) {
			needy = append(needy, name)
		}
	}
	known := make(map[string]struct{}, len(needy))
	for _, name := range needy {
		known[name] = struct{}{}
	}
	// What was ordered for a name that handshakes ask for is followed, too.
	for _, e := range f.account.ledger.Pending() {
		if e.State == ledger.Gone || e.Over(now) || e.Flag != nil {
			continue
		}
		for _, name := range e.Names {
			configured, _ := f.site.Allows(name)
			if _, twice := known[name]; configured && !twice {
				needy, known[name] = append(needy, name), struct{}{}
				break
			}
		}
	}
	return needy
}

func (f *flow) needs(name string, served []*x509.Certificate, serve []*ledger.Brief, first func(string) bool) bool {
	var ours []*x509.Certificate
	for _, leaf := range served {
		if f.lost(name, leaf) {
			return true
		}
		if f.account.ledger.HasSerial(name, serialOf(leaf)) {
			ours = append(ours, leaf)
		}
	}
	for _, b := range serve {
		if b.State() != ledger.Issued {
			return true // to be followed
		}
	}
	if len(serve) > 0 && !slices.ContainsFunc(served, func(leaf *x509.Certificate) bool { return serve[0].Gave(serialOf(leaf)) }) {
		return true // another server has got a better one, or it was lost on the way
	}
	if len(ours) == 0 {
		return first(name)
	}
	newest := slices.MaxFunc(ours, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return f.site.Due(newest) && firstName(newest) != name
}
