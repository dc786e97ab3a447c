package vendortest

import "github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"

// Limit and Limiter are those that vendors keep to, for tests outside of their packages.
type (
	Limit   = kit.Limit
	Limiter = kit.Limiter
)

// NewLimiter returns a limiter of its own.
func NewLimiter(limits ...Limit) *Limiter { return kit.NewLimiter(limits...) }
