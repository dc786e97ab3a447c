package proof

import (
	"context"
	"errors"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// caaCheck asks DNS whether the CA may issue, before anybody pays for its refusal.
type caaCheck struct {
	mode       Mode
	anyName    bool // names need not be in DNS
	identities []string
	resolvers  check.Resolvers
	logger     *zap.Logger
}

// ValidationMethods are the labels of a method in the CAA parameter validationmethods.
// CAs that do not speak ACME go by the number of the method below section 3.2.2.4 of
// the Baseline Requirements: 18 is the agreed-upon change to a website, 7 the DNS
// change. Whether such a CA also accepts ACME's label for the same kind of proof is up
// to the CA, so here it is accepted.
func ValidationMethods(m vendors.Method) []string {
	switch m {
	case vendors.MethodHTTP, vendors.MethodHTTPS:
		return []string{"ca-tbr-18", "http-01"}
	case vendors.MethodDNS:
		return []string{"ca-tbr-7", "dns-01"}
	}
	return nil
}

// check returns an error for names that CAA records forbid the CA to issue for, or whose DNS has
// signatures that do not verify, unless the mode is [ModeWarn]. If that cannot be found out, it is
// no reason to stop: the CA looks for itself.
func (c caaCheck) check(ctx context.Context, p Proof) error {
	if len(c.identities) == 0 || c.anyName {
		return nil
	}
	return forAll(p.Names, func(name string) error {
		return c.resolvers.CheckCAA(ctx, c.question(p, name))
	}, func(name string, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, forbidden := errors.AsType[*dcv.CAAError](err)
		_, bogus := errors.AsType[*check.NameError](err)
		if (forbidden || bogus) && c.mode != ModeWarn {
			return err
		}
		c.logger.Warn("whether the CAA records let the CA issue is not certain; it will look for itself",
			zap.String("identifier", name), zap.Error(err))
		return nil
	})
}

func (c caaCheck) question(p Proof, name string) dcv.CAAQuestion {
	return dcv.CAAQuestion{Name: name, Identities: c.identities, Methods: ValidationMethods(p.Method)}
}

// atATime is how many names of an order are looked at at once. An order can have
// hundreds, and each may take seconds.
const atATime = 8

// forAll calls look for all elements, a few at a time, and then judge for each error, in order.
// It returns all errors that judge returns.
func forAll[T any](list []T, look func(T) error, judge func(T, error) error) error {
	errs := make([]error, len(list))
	var group errgroup.Group
	group.SetLimit(atATime)
	for i, element := range list {
		group.Go(func() error {
			errs[i] = look(element)
			return nil
		})
	}
	_ = group.Wait() // they are in errs
	var found []error
	for i, err := range errs {
		if err != nil {
			found = append(found, judge(list[i], err))
		}
	}
	return allOf(found...)
}
