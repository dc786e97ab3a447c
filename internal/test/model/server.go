package model

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// System is the code under test in one process of one server.
type System interface {
	// Load puts a config in force, in place of the previous one. It must return. An error
	// means that the previous one stays in force; loading is tried again.
	Load(ctx context.Context, cfg Config) error

	// Issue is certmagic's request for a certificate for the name, which is served or at
	// least stored when there is no error. An error that is certmagic.ErrNoRetry ends a
	// first issuance: nobody asks again until the next config or process. ctx ends with
	// the config.
	Issue(ctx context.Context, name string) error

	// Served returns what this process would serve for the name, or nil. It reads memory
	// only.
	Served(name string) *tls.Certificate

	// Crash ends all goroutines of the process, whose context is done already. It need
	// not wait for them.
	Crash()
}

// Factory makes the System of a process that starts.
type Factory func(*Process) System

// Process is one life of a server's program, and its access to the world. Everything that
// it provides fails with ErrCrashed, and has no effect, once the process is dead.
type Process struct {
	// Server is the server's number, from 0, and Life which of its processes this is,
	// from 1.
	Server, Life int

	// Storage is shared with the other servers.
	Storage certmagic.Storage

	// Logger writes to the history's trace.
	Logger *zap.Logger

	// Params are those of the history.
	Params Params

	w      *World
	server *server
	ctx    context.Context
	cancel context.CancelCauseFunc
	system System

	dead     bool // guarded by World.mu
	zombies  int  // operations that were attempted after death, guarded by World.mu
	open     map[*op]struct{}
	dieAfter *op

	configs chan Config
}

// Context ends when the process dies, with the cause ErrCrashed.
func (p *Process) Context() context.Context { return p.ctx }

// Now is the server's wall clock. It may differ from the true time by up to Params.Skew
// and may jump; it has no monotonic reading. Monotonic time is the bubble's: time.Now.
func (p *Process) Now() time.Time {
	return time.Now().Round(0).Add(time.Duration(p.server.offset.Load()))
}

// Vendor returns the vendor of that number as the account's client of this process.
func (p *Process) Vendor(number int, account string) vendors.Vendor {
	if p.w.market != nil {
		return p.w.market.NewVendor(p, number, account)
	}
	return p.w.sellers[number].client(p, account)
}

// Market is where the vendors' clients buy, nil if they are the model's own.
func (p *Process) Market() Market { return p.w.market }

// Work stands for what is done before an order and can fail: presenting proofs, probing.
func (p *Process) Work(ctx context.Context) error {
	w := p.w
	return w.do(ctx, p, "work", "", func(o *op) {
		w.effect(o, w.delay(), func() (time.Duration, error) {
			if w.oneIn(12) {
				return w.delay(), fmt.Errorf("the proof cannot be fetched")
			}
			return w.delay(), nil
		})
	})
}

// tooManyZombies is how many operations the goroutines of a dead process may attempt.
const tooManyZombies = 10_000

// zombie counts an operation of a dead process. World.mu is held.
func (p *Process) zombie(kind string) {
	if p.zombies++; p.zombies < tooManyZombies {
		return
	}
	if p.w.result.Violation == nil && !p.w.ended {
		p.w.result.Violation = &Violation{Kind: Undead, Text: fmt.Sprintf("a goroutine of a dead process goes on with %s", kind), At: p.w.now()}
	}
	p.w.ended = true
	p.w.mu.Unlock()
	select {
	case p.w.wake <- struct{}{}:
	default:
	}
	runtime.Goexit()
}

// server is a machine.
type server struct {
	w      *World
	id     int
	lives  int
	offset atomic.Int64 // of its wall clock
	up     *Process     // nil: down
	config Config       // what it is, or will be, configured with
	loaded []loadedConfig

	checked map[string]*tls.Certificate // pairs that the judge has verified
}

// loadedConfig is a config that was in force from some moment on.
type loadedConfig struct {
	Config
	until time.Duration // 0: it still is
}

// boot starts a process. It belongs to the loop.
func (s *server) boot() {
	if s.up != nil {
		return
	}
	w := s.w
	s.lives++
	p := &Process{Server: s.id, Life: s.lives, Params: w.p, w: w, server: s, open: make(map[*op]struct{}), configs: make(chan Config, 1)}
	p.Storage = &storage{w, p}
	p.Logger = w.logger(s.id)
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	s.up = p
	w.say("server %d starts", s.id)
	cfg := s.config
	w.run(func() {
		p.system = w.make(p)
		p.live(cfg)
	})
}

// crash kills the process of a server, which starts again after a time; 0 lets the tape
// choose. It belongs to the loop.
func (w *World) crash(s *server, down time.Duration) {
	p := s.up
	if p == nil {
		return
	}
	w.kill(p)
	if down == 0 {
		down = []time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute, 4 * time.Hour}[w.tape.Pick(4)]
	}
	w.say("server %d crashes, for %s", s.id, down)
	w.after(down, s.boot)
}

func (w *World) kill(p *Process) {
	w.mu.Lock()
	p.dead = true
	w.mu.Unlock()
	p.server.up = nil
	p.server.replaced(w.now())
	p.cancel(ErrCrashed)
	for o := range p.open {
		w.finish(o, ErrCrashed)
	}
	w.abandon(p)
	w.freed = true
}

// configure gives a server another config. It belongs to the loop.
func (s *server) configure(cfg Config) {
	s.w.say("server %d is to have %+v", s.id, cfg)
	s.config = cfg
	if s.up == nil {
		return
	}
	select {
	case <-s.up.configs: // it was never loaded
	default:
	}
	s.up.configs <- cfg
	s.w.freed = true
}

// inForce notes that a config is loaded from now on, or about to be.
func (s *server) inForce(cfg Config) { s.loaded = append(s.loaded, loadedConfig{Config: cfg}) }

// replaced notes that all configs so far are no longer in force.
func (s *server) replaced(now time.Duration) {
	for i := range s.loaded {
		if s.loaded[i].until == 0 {
			s.loaded[i].until = now
		}
	}
}
