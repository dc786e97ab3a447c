package issuer

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

const (
	// unservedAfter is how long after a start the names that have no certificate are logged.
	// Most CAs validate by file within a minute.
	unservedAfter = time.Minute

	// unservedEvery is how often they are logged again, as long as there are any.
	unservedEvery = 6 * time.Hour

	// unservedShown bounds the names in the log.
	unservedShown = 10
)

// tellUnserved logs, until ctx ends, which of the names have no certificate of any kind, so
// that nobody can visit them. alone reports whether no issuer but this one could give them one.
func (f *flow) tellUnserved(ctx context.Context, names func() []string, alone func() bool) {
	for wait := unservedAfter; poll.Wait(ctx, wait) == nil; wait = unservedEvery {
		unserved := f.unserved(names())
		if len(unserved) == 0 {
			continue
		}
		advice := "the issuers behind this one have not given them one either; the log tells why"
		if alone() {
			advice = "a free issuer behind this one in the tls block, such as acme, gives them a certificate meanwhile"
		}
		f.logger.Warn("sites have no certificate of any kind; their visitors get a TLS error until an order is done",
			zap.String("vendor", f.about.Name), zap.Int("sites", len(unserved)),
			zap.Strings("identifiers", unserved[:min(len(unserved), unservedShown)]), zap.String("advice", advice))
	}
}

func (f *flow) unserved(names []string) []string {
	return slices.DeleteFunc(names, f.site.IsServed)
}
