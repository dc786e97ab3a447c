package app

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(origin))
}

const (
	// maxEvents bounds the events that are queued while handlers are slow.
	maxEvents = 10_000

	// eventPatience is how long the end of a config waits for queued events to be handled.
	eventPatience = 5 * time.Second
)

// emitter hands events to Caddy's events app, one after the other, in a goroutine of its own:
// handlers take as long as they like.
type emitter struct {
	ctx    caddy.Context // of the origin
	cancel context.CancelFunc
	events *caddyevents.App
	logger *zap.Logger
	ready  <-chan struct{} // closed when the events app has started

	mu     sync.Mutex
	queue  chan event // closed by close
	closed bool
	full   bool // the queue, which has been logged
	done   chan struct{}
}

type event struct {
	name string
	data map[string]any
}

// newEmitter returns an emitter for the config of ctx. It must be closed.
func newEmitter(ctx caddy.Context, events *caddyevents.App, logger *zap.Logger, ready <-chan struct{}) (*emitter, error) {
	clean, cancel := caddy.NewContext(ctx)
	mod, err := clean.LoadModuleByID(originID, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	return &emitter{
		ctx: mod.(*origin).ctx, cancel: cancel, events: events, logger: logger, ready: ready,
		queue: make(chan event, maxEvents), done: make(chan struct{}),
	}, nil
}

const originID = moduleID + ".events"

// origin is the module that events come from. Caddy takes it from the end of a context's list of
// modules, which is not reliable for the app: modules that are loaded one after the other within
// the same module, as the app and the vendor are within an issuer, have contexts whose lists share
// memory, so that the later module overwrites the earlier. So this module is loaded by a context
// that has none yet.
type origin struct{ ctx caddy.Context }

// CaddyModule returns the Caddy module information.
func (*origin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: originID, New: func() caddy.Module { return new(origin) }}
}

// Provision keeps the context.
func (o *origin) Provision(ctx caddy.Context) error {
	o.ctx = ctx
	return nil
}

// Emit queues an event for the handlers of the config, which get events in the order of the calls.
// It never blocks: while the queue is full, events are dropped. The data must not be changed
// afterwards.
func (a *App) Emit(name string, data map[string]any) { a.emitter.emit(event{name, data}) }

func (em *emitter) emit(e event) {
	select {
	case <-em.ready:
		if !em.events.ShouldEmit(e.name) {
			return
		}
	default: // handlers may yet subscribe
	}
	em.mu.Lock()
	defer em.mu.Unlock()
	if em.closed {
		return
	}
	select {
	case em.queue <- e:
		em.full = false
	default:
		if !em.full {
			em.full = true
			em.logger.Error("event handlers are too slow; dropping events", zap.String("name", e.name), zap.Int("waiting", cap(em.queue)))
		}
	}
}

// run emits what is in the queue until it is closed, or the config has ended.
func (em *emitter) run() {
	defer close(em.done)
	for e := range em.queue {
		if em.ctx.Err() != nil {
			em.logger.Error("the config has ended before its events were handled; dropping events", zap.Int("waiting", len(em.queue)+1))
			return
		}
		em.handle(e)
	}
}

func (em *emitter) handle(e event) {
	defer func() {
		if v := recover(); v != nil {
			em.logger.Error("panic in an event handler", zap.String("name", e.name), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		}
	}()
	em.events.Emit(em.ctx, e.name, e.data)
}

// close accepts no more events, and waits a while for the queued ones to be handled, if the config
// ever ran. It is called once.
func (em *emitter) close() {
	defer em.cancel()
	em.mu.Lock()
	em.closed = true
	close(em.queue)
	em.mu.Unlock()
	select {
	case <-em.ready:
	default:
		return // the config never came to run
	}
	timer := time.NewTimer(eventPatience)
	defer timer.Stop()
	select {
	case <-em.done:
	case <-timer.C:
	}
}

// Interface guard
var _ caddy.Provisioner = (*origin)(nil)
