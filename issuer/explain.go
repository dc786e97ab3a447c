package issuer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// When the CA takes long to validate names, people are told why, as far as that can be seen from
// what the CA looks at, and from the visits to all servers of the cluster.

const (
	// explainAfter is how long after the proofs are there the first look is taken, in units of the
	// shortest poll: 5 minutes by default. Each pause is twice the one before it, up to maxExplain.
	explainAfter = 60
	maxExplain   = 6 * time.Hour

	// maxExplaining bounds the looks at a time for one account. Each occupies a worker of the
	// scheduler while it waits for resolvers and hosts, which may not answer, and where one
	// order is stuck, thousands may be. The others wait for their next poll.
	maxExplaining = 8
)

// explanations paces the looks at what keeps a CA from validating.
type explanations struct {
	every time.Duration
	last  time.Time
	found *ledger.Unproven // by this server
}

// unvalidated are the names of an order that the CA has not validated; all of them if the vendor
// does not tell. Names that the CA adds of its own accord hold nothing up.
func unvalidated(e *ledger.Entry, order vendors.Order) []string {
	return slices.DeleteFunc(slices.Clone(e.Names), func(name string) bool {
		return slices.ContainsFunc(order.Names, func(n vendors.NameStatus) bool { return n.Name == name && n.Verified })
	})
}

// explain returns why names of an order are not validated, nil if they are or if it is not known,
// and whether that differs from the entry, so that it must be written down.
func (f *flow) explain(ctx context.Context, j *errand, e *ledger.Entry, look *look, order vendors.Order) (why *ledger.Unproven, changed bool) {
	known := e.Attempt.Unproven
	names := unvalidated(e, order)
	if len(names) == 0 || order.Held {
		return nil, known != nil
	}
	by, ok := f.prove.(proof.Explainer)
	if !ok || len(e.Attempt.Challenges) == 0 {
		return known, false
	}
	x := look.explains
	if x == nil {
		x = &explanations{every: explainAfter * f.rules.pace.Min, last: time.Now()}
		look.explains = x
	}
	if time.Since(x.last) < x.every {
		return known, false
	}
	done, ok := f.account.beginExplaining()
	if !ok {
		return known, false
	}
	defer done()
	visits, err := f.visitsOf(ctx, e)
	if err != nil {
		j.log.Debug("reading who came for validation files failed", zap.String("order_id", e.OrderID), zap.Error(err))
	}
	list := by.Explain(ctx, f.proofOf(e), names, func(name string) []check.Visit { return visits[name] })
	if ctx.Err() != nil || len(list) == 0 {
		return known, false
	}
	x.last, x.every = time.Now(), min(2*x.every, maxExplain)
	d := check.Plainest(list)
	why = &ledger.Unproven{Cause: string(d.Cause), Name: d.Name, Reason: d.Name + " is not validated: " + vendors.OneLine(d.Message, maxExplained)}
	if d.Advice != "" {
		why.Reason += "; " + vendors.OneLine(d.Advice, maxExplained)
	}
	if said := look.nudge.said; said != "" {
		why.Reason += "; asked to check again, " + f.about.Name + " says: " + said
	}
	if others := len(names) - 1; others > 0 {
		why.Reason += fmt.Sprintf(" (%d other names of the order are not validated either)", others)
	}
	// Another server may see it otherwise. Each writes down what it has not found before.
	before := x.found
	if x.found = why; known != nil && (*known == *why || before != nil && *before == *why) {
		return known, false
	}
	j.log.Warn("the CA has not validated a name yet", zap.Strings("identifiers", e.Names), zap.String("order_id", e.OrderID),
		zap.String("cause", why.Cause), zap.String("reason", why.Reason))
	return why, true
}

// maxExplained bounds what is repeated of the answers of hosts and name servers, in bytes.
const maxExplained = 800

// visitsOf returns the visits to all servers for the latest request of an entry, by name.
func (f *flow) visitsOf(ctx context.Context, e *ledger.Entry) (map[string][]check.Visit, error) {
	list := f.toLedger(f.files.Visits(e.Attempt.Reference))
	e, err := f.ledger.Load(ctx, e.ID) // memory does not keep all of it
	if err == nil {
		var kept []ledger.Visit
		kept, err = f.ledger.Visits(ctx, e)
		list = slices.Concat(kept, list)
	}
	visits := make(map[string][]check.Visit)
	for _, v := range list {
		visits[v.Host] = append(visits[v.Host], check.Visit{From: v.From, Server: v.Server, Status: v.Status, Missed: v.Missed, Time: v.Time})
	}
	return visits, err
}
