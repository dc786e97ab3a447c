package proof

import (
	"context"
	"errors"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Place is where the CA looks for the record of a name: as the vendor asks for it, or else as far as
// that is known before the order.
func Place(about vendors.Description, override string, p Proof, name string) check.Place {
	at := check.Place{Name: name, Label: about.RecordName, Type: about.RecordType, Override: override, Taken: len(p.Challenges) > 0}
	host := strings.TrimPrefix(name, "*.")
	for _, ch := range p.Challenges {
		if ch.Method == vendors.MethodDNS && (ch.Name == "" || strings.TrimPrefix(ch.Name, "*.") == host) {
			at.Label, at.Type = strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(ch.RecordName, ".")), "."+host), ch.RecordType
			break
		}
	}
	return at
}

// placeCheck asks DNS whether a record of ours can be where the CA looks for it, before anybody pays
// for an order whose record cannot be found.
type placeCheck struct {
	mode      Mode
	about     vendors.Description
	override  string
	resolvers check.Resolvers
	logger    *zap.Logger
}

// check returns an error for names whose record the CA would not find, unless the mode is
// [ModeWarn]. If that cannot be found out, it is no reason to stop: the CA looks for itself.
func (c placeCheck) check(ctx context.Context, p Proof) error {
	if c.about.AnyName {
		return nil
	}
	return forAll(p.Names, func(name string) error {
		doubts, err := c.resolvers.Place(ctx, Place(c.about, c.override, p, name))
		for _, doubt := range doubts {
			c.logger.Warn("whether the CA finds the record is not certain; it will look for itself",
				zap.String("identifier", name), zap.String("reason", doubt))
		}
		return err
	}, func(name string, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, astray := errors.AsType[*check.PlaceError](err); astray && c.mode != ModeWarn {
			return err
		}
		c.logger.Warn("the CA is unlikely to find the record; ordering all the same, as probe says", zap.String("identifier", name), zap.Error(err))
		return nil
	})
}
