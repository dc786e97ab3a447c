package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// live loads the configs of a process and asks for certificates as certmagic does.
func (p *Process) live(cfg Config) {
	var (
		asking   sync.WaitGroup
		stop     = func() {}
		inForce  bool
		tryAgain <-chan time.Time
	)
	defer func() {
		stop()
		p.system.Crash()
		asking.Wait()
	}()
	for {
		ctx, cancel := context.WithCancel(p.ctx)
		if p.load(ctx, cfg) {
			stop() // the old config's context ends when the new one is in force
			stop, inForce, tryAgain = cancel, true, nil
			p.ask(ctx, &asking, cfg)
		} else {
			cancel()
			tryAgain = time.After(time.Minute)
			if !inForce {
				tryAgain = time.After(5 * time.Second) // a supervisor starts it again
			}
		}
		select {
		case <-p.ctx.Done():
			return
		case cfg = <-p.configs:
		case <-tryAgain:
		}
	}
}

// load loads one config and reports whether it is in force.
func (p *Process) load(ctx context.Context, cfg Config) bool {
	p.event("load", func() { p.server.inForce(cfg) })
	err := p.system.Load(ctx, cfg)
	p.event("loaded", func() {
		s, last := p.server, len(p.server.loaded)-1
		if err != nil {
			p.w.say("server %d: the config is not loaded: %v", s.id, err)
			s.loaded[last].until = p.w.now()
			return
		}
		rest := s.loaded[last]
		s.loaded = s.loaded[:last]
		s.replaced(p.w.now())
		s.loaded = append(s.loaded, rest)
	})
	return err == nil && p.ctx.Err() == nil
}

// event lets something happen in the loop while the process is alive.
func (p *Process) event(what string, do func()) {
	_ = p.w.do(p.ctx, nil, "event", fmt.Sprintf("%d %s", p.Server, what), func(o *op) {
		if !p.dead {
			do()
		}
		p.w.finish(o, nil)
	})
}

// ask asks for the certificates of a config until ctx ends: at once for what is not
// served, then by maintenance for what is due.
func (p *Process) ask(ctx context.Context, asking *sync.WaitGroup, cfg Config) {
	for i, name := range cfg.Names {
		asking.Go(func() {
			// A moment between the names makes histories repeatable.
			if wait(ctx, time.Duration(i)*time.Millisecond) && p.system.Served(name) == nil {
				p.first(ctx, name)
			}
		})
	}
	asking.Go(func() { p.maintain(ctx, cfg) })
}

// firstPauses are certmagic's between the attempts of a first issuance.
var firstPauses = []time.Duration{
	time.Minute, 2 * time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 10 * time.Minute, 10 * time.Minute,
	20 * time.Minute, 20 * time.Minute, 20 * time.Minute, 20 * time.Minute, 30 * time.Minute, 30 * time.Minute, 30 * time.Minute,
	time.Hour, time.Hour, time.Hour, 2 * time.Hour, 2 * time.Hour, 3 * time.Hour, 3 * time.Hour, 6 * time.Hour,
}

// first asks until there is a certificate, or until it is told not to ask again.
func (p *Process) first(ctx context.Context, name string) {
	for i := 0; ; i++ {
		err := p.issue(ctx, name)
		var never certmagic.ErrNoRetry
		if err == nil || errors.As(err, &never) {
			return
		}
		if !wait(ctx, firstPauses[min(i, len(firstPauses)-1)]) {
			return
		}
	}
}

// maintain renews what is due. As in certmagic, it knows only names that are the first
// one of the certificate that is served for them, and checks every ten minutes.
func (p *Process) maintain(ctx context.Context, cfg Config) {
	const look, longest = 10 * time.Minute, 6 * time.Hour
	failures := make(map[string]int)
	after := make(map[string]time.Time)
	for {
		pause := longest
		for _, name := range cfg.Names {
			cert := p.system.Served(name)
			if cert == nil || cert.Leaf == nil || len(cert.Leaf.DNSNames) == 0 || cert.Leaf.DNSNames[0] != name {
				continue
			}
			leaf := cert.Leaf
			due := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
			if now := p.Now(); now.Before(due) {
				pause = min(pause, due.Sub(now).Truncate(look)+look)
				continue
			}
			pause = look
			if time.Now().Before(after[name]) {
				continue
			}
			if err := p.issue(ctx, name); err != nil {
				after[name] = time.Now().Add(firstPauses[min(failures[name], len(firstPauses)-1)])
				failures[name]++
				continue
			}
			delete(failures, name)
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// handshake asks as a client does when it names a host without a certificate: once, and
// not waiting forever.
func (p *Process) handshake(name string) {
	cfg := p.server.config
	if !cfg.OnDemand && !slices.Contains(cfg.Names, name) {
		return
	}
	p.w.run(func() {
		ctx, cancel := context.WithTimeout(p.ctx, 90*time.Second)
		defer cancel()
		if p.system != nil && p.system.Served(name) == nil && cfg.OnDemand {
			_ = p.issue(ctx, name)
		}
	})
}

func (p *Process) issue(ctx context.Context, name string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			p.w.violate(Panicked, "%v", r)
		}
	}()
	err = p.system.Issue(ctx, name)
	if p.w.trace != nil {
		p.event("issue "+name, func() { p.w.say("server %d: issue %s: %v", p.Server, name, err) })
	}
	return err
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
