package issuer

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// strayAge is for how long a private key must have been of no use before it is removed.
// The key of an order that is being prepared is stored a moment before its entry.
const strayAge = time.Hour

// tidyKeys removes private keys left behind by processes that died between storing a
// certificate and removing its key, or before they placed the order. The ledger must have
// been read just before.
func (f *flow) tidyKeys(ctx context.Context) {
	kept, err := f.ledger.Keys(ctx)
	if err != nil {
		f.logger.Warn("looking for private keys that were left behind failed", zap.Error(err))
		return
	}
	requested, err := f.ledger.Requested(ctx, kept)
	if err != nil {
		f.logger.Warn("finding out which private keys were left behind failed", zap.Error(err))
		return
	}
	kept = slices.DeleteFunc(kept, func(reference string) bool {
		about := requested[reference]
		if slices.ContainsFunc(about, func(e *ledger.Entry) bool { return f.needsKey(ctx, e, reference) }) {
			return true
		}
		// A process may have died just before it would have removed the key of a certificate.
		delivered := slices.ContainsFunc(about, func(e *ledger.Entry) bool {
			return e.State == ledger.Issued && e.Certificate.Reference == reference
		})
		if delivered {
			f.forgetKey(ctx, reference)
		}
		return delivered
	})
	for _, reference := range f.account.strays(kept) {
		f.logger.Info("removing a private key that was left behind", zap.String("reference", reference))
		f.forgetKey(ctx, reference)
	}
}

// needsKey reports whether an entry may still need the key of a request: until the fate of
// the request is known, and then until its certificate, or a better one, is stored with its key.
func (f *flow) needsKey(ctx context.Context, e *ledger.Entry, reference string) bool {
	latest, given := e.Attempt.Reference == reference, e.Certificate != nil && e.Certificate.Reference == reference
	switch {
	case !latest && !given || e.State == ledger.Gone:
		return false
	case e.State != ledger.Issued:
		return true
	}
	return given && !slices.ContainsFunc(e.Covered, func(name string) bool {
		have, _, err := f.site.Stored(ctx, name)
		return err == nil && !f.better(e, name, have)
	})
}

// strays notes which keys are of no use, and returns those that have been so for longer than
// strayAge.
func (a *account) strays(references []string) (old []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[string]time.Time, len(references))
	for _, reference := range references {
		first, known := a.stray[reference]
		if !known {
			first = time.Now()
		}
		seen[reference] = first
		if time.Since(first) > strayAge {
			old = append(old, reference)
		}
	}
	a.stray = seen
	return old
}
