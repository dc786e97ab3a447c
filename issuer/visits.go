package issuer

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// Who came for the validation files of an order is written down for people. With each write of
// its entry, the server that drives it adds those who came to this server, at no further cost.
// For an order that is not issued at once, each server that is asked keeps a file of its own.

// visitsEvery is how often a server checks whether there are visits to be written down.
const visitsEvery = 15 * time.Second

// hostName is what this server is called where people are told of it.
var hostName = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unknown"
	}
	return name
})

// tellVisits adds to an entry who came to this server for its latest request.
func (f *flow) tellVisits(e *ledger.Entry) {
	if total := f.files.VisitCount(e.Attempt.Reference); total > 0 {
		e.Attempt.AddVisits(f.toLedger(f.files.Visits(e.Attempt.Reference)), total)
	}
}

func (f *flow) toLedger(visits []dcv.Visit) []ledger.Visit {
	list := make([]ledger.Visit, 0, len(visits))
	for _, v := range visits {
		from, _, err := net.SplitHostPort(v.RemoteAddr)
		if err != nil {
			from = v.RemoteAddr
		}
		list = append(list, ledger.Visit{
			Time: v.Time.UTC().Round(0), Host: v.Host, From: from, Server: f.server, UserAgent: v.UserAgent, Status: v.Status, Missed: v.Missed,
		})
	}
	return list
}

// keepVisits writes down, until ctx ends, who came to this server for orders that are still
// pending, whichever server drives them.
func (f *flow) keepVisits(ctx context.Context) {
	var reported time.Time
	for poll.Wait(ctx, visitsEvery) == nil {
		err := f.files.WriteVisits(ctx, f.ledger.Storage, f.ledger.Prefix, func(ctx context.Context, reference string, newest []dcv.Visit, count uint64) error {
			return f.ledger.KeepVisits(ctx, reference, f.server, f.toLedger(newest), count)
		})
		if err != nil && ctx.Err() == nil && time.Since(reported) > time.Hour {
			reported = time.Now()
			f.logger.Warn("writing down who came for validation files failed; trying again", zap.String("vendor", f.about.Name), zap.Error(err))
		}
	}
}
