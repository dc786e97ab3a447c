// Package hostile puts together a sandbox that serves all dialects and misbehaves on
// demand: the core CA, its dialects, their quirks, and faults. It is for tests and the
// program order-sandbox. The plugin must not use it: its sandbox is a CA that behaves.
package hostile

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/digicert"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/howssl"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/quirk"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/racent"
)

// Config describes a sandbox with all dialects. Products defaults to those of Racent and
// DigiCert.
type Config struct {
	Core

	// Quirks are deviations from the documented behaviour. They replace
	// Core.Hooks.
	Quirks quirk.Quirks

	// Dialects are the names of those that are served. Nil means all.
	Dialects []string
}

func (cfg *Config) complete() {
	if cfg.Products == nil {
		cfg.Products = append(racent.Products(), digicert.Products()...)
	}
	cfg.Hooks = cfg.Quirks.Hooks()
}

// CA is a sandbox with all dialects. Serve it, or use Transport, and Close it.
type CA struct {
	*sandboxca.CA
	*fault.Injector

	digicert *digicert.Dialect
	howssl   *howssl.Dialect

	mu     sync.Mutex
	cfg    Config
	closed bool
	calls  sync.WaitGroup // calls in progress
}

// New makes a sandbox, or loads the one in cfg.Dir.
func New(cfg Config) (*CA, error) {
	cfg.complete()
	core, err := sandboxca.New(cfg.Core)
	if err != nil {
		return nil, err
	}
	ca := &CA{CA: core, cfg: cfg}
	if err := ca.mount(cfg.Dialects); err != nil {
		core.Close()
		return nil, err
	}
	return ca, nil
}

// mount serves the dialects with these names, or all if names is nil.
func (ca *CA) mount(names []string) (err error) {
	ca.digicert = digicert.New(ca.CA)
	if ca.howssl, err = howssl.New(ca.CA); err != nil {
		return err
	}
	byName := map[string]fault.Dialect{
		racent.Name: racent.New(ca.CA), digicert.Name: ca.digicert, howssl.Name: ca.howssl,
	}
	if names == nil {
		names = []string{racent.Name, digicert.Name, howssl.Name}
	}
	var served []sandboxca.Dialect
	var targets []fault.Dialect
	for _, name := range names {
		d := byName[name]
		if d == nil {
			return fmt.Errorf("unknown dialect %q", name)
		}
		wrapped := quirk.Wrap(ca.CA, d, ca.Quirks)
		served, targets = append(served, wrapped), append(targets, wrapped)
	}
	ca.Injector = fault.New(ca.Handler(served...), targets...)
	ca.setQuirks()
	return nil
}

// Quirks are the current deviations from the documented behaviour.
func (ca *CA) Quirks() quirk.Quirks {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.cfg.Quirks
}

func (ca *CA) setQuirks() {
	q := ca.Quirks()
	ca.digicert.SetQuirks(q.DigiCert)
	ca.howssl.SetQuirks(q.HowSSL)
}

// Update changes the configuration at run time; f must not call the CA. Dir, Logger
// and Dialects stay what they were, and so does the balance of an account that exists
// already (see SetBalance).
func (ca *CA) Update(f func(*Config)) error {
	ca.mu.Lock()
	next := ca.cfg
	f(&next)
	next.complete()
	next.Dir, next.Logger, next.Dialects = ca.cfg.Dir, ca.cfg.Logger, ca.cfg.Dialects
	err := ca.CA.Update(func(cfg *sandboxca.Config) { *cfg = next.Core })
	if err == nil {
		ca.cfg = next
	}
	ca.mu.Unlock()
	ca.setQuirks()
	return err
}

// Close ends everything that the sandbox has started. Later requests get an HTTP 503.
func (ca *CA) Close() {
	ca.mu.Lock()
	ca.closed = true
	ca.mu.Unlock()
	ca.Injector.Close()
	ca.CA.Close()
	ca.calls.Wait()
}

// CreateAtHowSSL creates an unpaid order in the console of HowSSL and returns its
// check_id, see howssl.Dialect.
func (ca *CA) CreateAtHowSSL(token, product string, years int, names ...string) (checkID string, err error) {
	return ca.howssl.CreateInConsole(token, product, years, names...)
}

// Transport carries requests to the CA without a network, as tests under testing/synctest
// need. An aborted handler looks like a reset connection, and an answer shorter than
// declared ends with io.ErrUnexpectedEOF. As with a real connection, a call that its
// client gave up goes on; Close waits for it.
func (ca *CA) Transport() http.RoundTripper { return inProcess{ca} }

// begin counts a call in flight, unless the CA is closed.
func (ca *CA) begin() error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.closed {
		return errors.New("the sandbox is closed")
	}
	ca.calls.Add(1)
	return nil
}
