// Package app is the Caddy app `commercial`: what belongs to a whole config rather than
// to one of its issuers. There is one App per config, which every issuer loads while it
// is provisioned, as Caddy's internal issuer loads the app pki.
//
// Caddy provisions and starts apps in random order. The App has a moment for what depends on all of
// them:
//
//	Provision    issuers register themselves
//	Start        all is provisioned: the hosts are known, issuers may work
//	"started"    everything listens, too: it is known which sockets Caddy serves
//	Stop         the next config has started, or the process ends
//
// Before its Start, nothing may ask for another app: that would provision the other app.
package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/internal/metrics"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

func init() {
	caddy.RegisterModule(new(App))
}

const moduleID = "commercial"

// App is what all commercial issuers of a config have in common. It has no options and need not be
// configured: the issuers load it.
type App struct {
	ctx    caddy.Context
	logger *zap.Logger

	members map[Member]*membership

	started   chan struct{} // closed by Start
	listening chan struct{} // closed by the event "started"
	end       sync.Once

	onStart, onListening, onStop []func()

	emitter *emitter

	// Set by Start.
	hosts    atomic.Pointer[hosts]
	httpPort int

	// Set by the event "started".
	front *dcv.Front
	names []string

	mu       sync.Mutex
	ended    bool
	leases   map[*dcv.Lease]struct{}
	measured map[Member]measured
}

// Member is what the app must know of an issuer. The value is the very one that is in the Issuers of
// an automation policy.
type Member interface {
	// IssuerKey is that of certmagic.Issuer. Issuers that share one work for one account.
	IssuerKey() string

	// ServesFiles reports whether names are proven by files over HTTP.
	ServesFiles() bool

	// Account is the issuer's account, as people are shown it. It is not ok until the issuer has its
	// config and works.
	Account() (account operator.Account, ok bool)

	// Round is that of Worker, for the names for which the config uses this issuer.
	Round(ctx context.Context, name string) (again time.Duration, more bool)
}

// membership is what is known of a member.
type membership struct {
	ctx caddy.Context
	set bool // SetConfig has been called
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: moduleID, New: func() caddy.Module { return new(App) }}
}

// Of returns the App of the config that an issuer is being provisioned with. Only issuers within the
// TLS app have one. Those of the admin endpoint's identity are loaded when the config runs already,
// and would wait for a Start that is past.
func Of(ctx caddy.Context) (*App, error) {
	if !within[*caddytls.TLS](ctx) {
		return nil, errors.New("a commercial issuer works in automation policies of the TLS app only; " +
			"use another issuer for the identity of the admin endpoint")
	}
	mod, err := ctx.App(moduleID)
	if err != nil {
		return nil, err
	}
	a, ok := mod.(*App)
	if !ok {
		return nil, fmt.Errorf("the app %s is a %T", moduleID, mod)
	}
	return a, nil
}

// within reports whether the module that is being provisioned is a part of a T.
func within[T any](ctx caddy.Context) bool {
	for _, mod := range ctx.Modules() {
		if _, ok := mod.(T); ok {
			return true
		}
	}
	return false
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	a.members = make(map[Member]*membership)
	a.leases = make(map[*dcv.Lease]struct{})
	a.measured = make(map[Member]measured)
	a.started, a.listening = make(chan struct{}), make(chan struct{})
	if err := metrics.Register(ctx.GetMetricsRegistry(), teller{a}); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	mod, err := ctx.App("events")
	if err != nil {
		return err
	}
	events, ok := mod.(*caddyevents.App)
	if !ok {
		return fmt.Errorf("the app events is a %T", mod)
	}
	if a.emitter, err = newEmitter(ctx, events, a.logger, a.listening); err != nil {
		return fmt.Errorf("setting up events: %w", err)
	}
	return events.On("started", startedHandler{a})
}

// Register makes an issuer known. It is called while the issuer is provisioned with ctx;
// more than once does no harm.
func (a *App) Register(ctx caddy.Context, m Member) {
	if have := a.members[m]; have != nil {
		have.ctx = ctx
		return
	}
	a.members[m] = &membership{ctx: ctx}
}

// Attach puts the handler for validation files on the servers of the HTTP app. An issuer that has
// registered calls it in each of its SetConfig; only then is it known whether routes can be added
// yet. After Start it does nothing.
func (a *App) Attach(m Member) error {
	if a.hosts.Load() != nil {
		return nil
	}
	is := a.members[m]
	if is == nil {
		return nil
	}
	again := is.set
	is.set = true
	if !again && !dcv.Nested(is.ctx) {
		return nil
	}
	return dcv.Attach(is.ctx)
}

// OnStart registers f to be called when the app starts, OnListening when all apps have started and
// listen, and OnStop when the config ends, if it has started. Functions are called one after the
// other in the order of registration, and must not wait for anything. Register them while the config
// is being provisioned.
func (a *App) OnStart(f func()) { a.onStart = append(a.onStart, f) }

// OnListening is described at OnStart.
func (a *App) OnListening(f func()) { a.onListening = append(a.onListening, f) }

// OnStop is described at OnStart.
func (a *App) OnStop(f func()) { a.onStop = append(a.onStop, f) }

// Start computes the hosts: all apps are provisioned now, whichever starts first.
func (a *App) Start() error {
	a.httpPort = dcv.HTTPPort(a.ctx)
	a.hosts.Store(a.findHosts())
	for _, f := range a.onStart {
		f()
	}
	a.enter()
	close(a.started)
	return nil
}

// startedHandler receives the event "started" of Caddy's core, which is emitted once all
// apps of the config have started.
type startedHandler struct{ app *App }

// Handle implements caddyevents.Handler.
func (h startedHandler) Handle(context.Context, caddy.Event) error {
	h.app.listens()
	return nil
}

func (a *App) listens() {
	select {
	case <-a.listening:
		return // somebody else emitted an event of that name
	default:
	}
	a.front = dcv.NewFront(a.ctx)
	a.names = a.findNames()
	dcv.HandOver(a.front)
	if err := a.Served(); err != nil {
		a.logger.Error("validation files are not served by this config", zap.Error(err))
	}
	for _, f := range a.onListening {
		f()
	}
	close(a.listening)
	go a.emitter.run()
}

// Stop ends what belongs to the config.
func (a *App) Stop() error {
	a.stop()
	return nil
}

// Cleanup does the same as Stop, because Caddy does not call Stop for a config that failed to load.
func (a *App) Cleanup() error {
	a.stop()
	return nil
}

func (a *App) stop() {
	a.end.Do(func() {
		a.leave()
		if a.hosts.Load() != nil {
			for _, f := range a.onStop {
				f()
			}
		}
		if a.emitter != nil {
			a.emitter.close() // nobody works for the config any more
		}
		a.endLeases()
	})
}

const (
	// startPatience is how long an issuer waits for the app to start.
	startPatience = time.Minute

	// listenPatience is how long it waits for all apps to listen.
	listenPatience = 10 * time.Second
)

// ErrNotStarted says that a config has not started yet, or never will. What was to be
// done can be tried again.
var ErrNotStarted = errors.New("the config has not started")

// WaitStarted returns when the app has started. It waits for a minute at most, and no
// longer than ctx and the config live. The error wraps ErrNotStarted.
func (a *App) WaitStarted(ctx context.Context) error { return a.wait(ctx, a.started, startPatience) }

// WaitListening returns when all servers of the config listen. It waits for ten seconds
// at most, and no longer than ctx and the config live. The error wraps ErrNotStarted.
func (a *App) WaitListening(ctx context.Context) error {
	return a.wait(ctx, a.listening, listenPatience)
}

func (a *App) wait(ctx context.Context, reached <-chan struct{}, patience time.Duration) error {
	select {
	case <-reached:
		return nil
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-reached:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w within %s", ErrNotStarted, patience)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotStarted, ctx.Err())
	case <-a.ctx.Done():
		return fmt.Errorf("%w: it was unloaded", ErrNotStarted)
	}
}

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = startedHandler{}
)
