package proof

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// nameCheck asks DNS for the names of an order, before anybody pays for one that the CA cannot
// find.
type nameCheck struct {
	mode      Mode
	anyName   bool // names need not be in DNS
	resolvers check.Resolvers
	logger    *zap.Logger
}

// places are where names lead, as far as that is known.
type places struct {
	addresses map[string][]netip.Addr
	gone      map[string]bool // names that lead nowhere
}

// check returns where the names lead. The error for names that DNS does not have, or has with
// signatures that do not verify, is a *check.NameError; with [ModeWarn] and [ModeOff] they are only
// warned of. All else is no reason to stop: the CA asks resolvers of its own.
func (c nameCheck) check(ctx context.Context, p Proof) (places, error) {
	if c.anyName {
		return places{}, nil
	}
	look := c.resolvers.Host
	if p.Method == vendors.MethodDNS {
		look = c.resolvers.Zone
	}
	var mu sync.Mutex
	found := places{make(map[string][]netip.Addr), make(map[string]bool)}
	err := forAll(p.Names, func(name string) error {
		l, err := look(ctx, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		mu.Lock()
		defer mu.Unlock()
		found.addresses[name] = l.Addresses
		_, found.gone[name] = errors.AsType[*check.NameError](err)
		for _, doubt := range l.Doubts {
			c.logger.Warn("whether the CA finds the name in DNS is not certain; it will look for itself",
				zap.String("identifier", name), zap.String("reason", doubt))
		}
		return err
	}, func(name string, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, gone := errors.AsType[*check.NameError](err); gone && (c.mode == ModeDefault || c.mode == ModeStrict) {
			return err
		}
		c.logger.Warn("the CA is unlikely to find the name in DNS; ordering all the same, as probe says", zap.String("identifier", name), zap.Error(err))
		return nil
	})
	return found, err
}
