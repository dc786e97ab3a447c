package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// HTTPPort is the port on which the config expects plain HTTP. It is known once
// WaitStarted has returned.
func (a *App) HTTPPort() int { return a.httpPort }

// Served returns a *dcv.UnservedError if validation files are needed and one of the
// config's servers on the HTTP port would not answer for them. It must not be called
// before WaitListening has returned.
func (a *App) Served() error {
	needed := false
	for m := range a.members {
		needed = needed || m.ServesFiles()
	}
	if !needed {
		return nil
	}
	// One is enough to tell what to do.
	for _, err := range a.front.Unserved(a.httpPort) {
		return err
	}
	return nil
}

// Listen makes validation files fetchable on the port, at each of the addresses in binds,
// or at all if there are none, until release is called: where none of the config's
// servers serves an address, a temporary listener is opened. It waits until the servers
// of the config listen, at most ten seconds. What Listen did ends with the config:
// whoever goes on with an order calls it on the next App.
//
// Release is never nil and may be called more than once. The errors:
//
//   - ErrNotStarted: try again later;
//   - *dcv.UnservedError: nothing can be served, and no order can be validated;
//   - *dcv.ListenError, alone or joined with others: release must be called nevertheless,
//     because listening is tried again until then. This is a warning, since requests may
//     reach Caddy in another way. If the files cannot be probed either, the order must
//     not be paid for.
func (a *App) Listen(ctx context.Context, binds []string, port int) (release func(), err error) {
	nothing := func() {}
	if err := a.WaitListening(ctx); err != nil {
		return nothing, err
	}
	if err := a.Served(); err != nil {
		return nothing, err
	}
	if len(binds) == 0 {
		binds = []string{""}
	}
	var leases []*dcv.Lease
	release = func() { a.release(leases) }
	var errs []error
	for _, bind := range binds {
		host, err := dcv.ResolveBind(ctx, bind)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		served, err := a.front.Serves(host, port)
		if err != nil {
			release()
			return nothing, err
		}
		if served {
			continue
		}
		lease, err := dcv.Listen(ctx, a.front, host, port, a.logger)
		leases = append(leases, lease)
		errs = append(errs, err)
		if !a.keep(lease) {
			release()
			return nothing, fmt.Errorf("%w: it has ended", ErrNotStarted)
		}
	}
	return release, errors.Join(errs...)
}

// keep remembers the lease until the config ends. It returns false if the config has
// ended.
func (a *App) keep(lease *dcv.Lease) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	a.leases[lease] = struct{}{}
	return true
}

func (a *App) release(leases []*dcv.Lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, lease := range leases {
		lease.Release()
		delete(a.leases, lease)
	}
}

// endLeases gives up the temporary listeners at the end of the config. If the next config
// has our issuers, too, their orders go on and will need the listeners in a moment. If
// not, its servers may have the same addresses, and nothing else would hand these over.
func (a *App) endLeases() {
	next := caddy.ActiveContext()
	_, err := next.AppIfConfigured(moduleID)
	goesOn := err == nil
	if !goesOn {
		dcv.HandOver(dcv.NewFront(next))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	for lease := range a.leases {
		if goesOn {
			lease.Leave()
		} else {
			lease.Release()
		}
	}
	clear(a.leases)
	if !goesOn {
		dcv.CloseUnused()
	}
}
