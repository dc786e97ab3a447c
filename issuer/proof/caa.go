package proof

import (
	"context"
	"errors"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// caaCheck asks DNS whether the CA may issue, before anybody pays for its refusal.
type caaCheck struct {
	mode       Mode
	anyName    bool // names need not be in DNS
	identities []string
	resolvers  []string
	logger     *zap.Logger
}

// validationMethods are the labels of a method in the parameter validationmethods. CAs
// that do not speak ACME go by the number of the method below section 3.2.2.4 of the
// Baseline Requirements: 18 is the agreed-upon change to a website, 7 the DNS change.
// Whether such a CA lets ACME's label for the same kind of proof pass is its own
// affair, so that here it does.
func validationMethods(m vendors.Method) []string {
	switch m {
	case vendors.MethodHTTP, vendors.MethodHTTPS:
		return []string{"ca-tbr-18", "http-01"}
	case vendors.MethodDNS:
		return []string{"ca-tbr-7", "dns-01"}
	}
	return nil
}

// check stops what DNS forbids the CA to issue. That it cannot be found out is no reason
// to stop: the CA asks for itself.
func (c caaCheck) check(ctx context.Context, p Proof) error {
	if len(c.identities) == 0 || c.anyName {
		return nil
	}
	checker := dcv.CAAChecker{Resolvers: c.resolvers}
	return forAll(p.Names, func(name string) error {
		return checker.Check(ctx, dcv.CAAQuestion{Name: name, Identities: c.identities, Methods: validationMethods(p.Method)})
	}, func(name string, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, forbidden := errors.AsType[*dcv.CAAError](err); forbidden && c.mode != ModeWarn {
			return err
		}
		c.logger.Warn("the CAA records do not settle that the CA may issue; it will look for itself",
			zap.String("identifier", name), zap.Error(err))
		return nil
	})
}

// atATime is how many names of an order are looked at at once. An order can have
// hundreds, and each may take seconds.
const atATime = 8

// forAll calls look for all elements, a few at a time, and then judge for each error, in
// order, until it returns one.
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
	for i, err := range errs {
		if err == nil {
			continue
		}
		if err := judge(list[i], err); err != nil {
			return err
		}
	}
	return nil
}
