package model

import (
	"context"
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Result is how a history ended.
type Result struct {
	Violation *Violation // nil: all rules were kept

	// How much happened.
	Events, Operations, Charges, Reissues, Signed, Persons, Acts, Lives int

	// Choices are what the tape said.
	Choices []uint16
}

// History runs one history. Its lines go to trace, unless that is nil.
func History(t *testing.T, tape *Tape, p Params, system Factory, trace func(string)) Result {
	t.Helper()
	var result Result
	synctest.Test(t, func(*testing.T) {
		w := &World{
			p: p, tape: tape, make: system, start: time.Now(), trace: trace, wake: make(chan struct{}, 1),
			stored: make(map[string][]version), locks: make(map[string]*lease), open: make(map[*op]struct{}),
		}
		w.begin()
		w.loop()
		w.shutDown()
		for _, s := range w.servers {
			w.result.Lives += s.lives
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.result.Choices = tape.Said()
		result = w.result
	})
	return result
}

// begin sets the world up.
func (w *World) begin() {
	w.drawTraits()
	for i := range 2 {
		w.sellers = append(w.sellers, newSeller(w, i))
	}
	if w.p.Market != nil {
		w.market = w.p.Market(w.tape)
	}
	for i, names := range [][]string{{nameA}, {nameB, nameC}} {
		w.foreign[i] = w.sellers[0].buyElsewhere(names)
	}
	cfg := w.changed(Config{}, false)
	for i := range 2 + w.tape.Pick(2) {
		s := &server{w: w, id: i, config: cfg, checked: make(map[string]*tls.Certificate)}
		s.offset.Store(int64(w.offset()))
		w.servers = append(w.servers, s)
		w.after(time.Duration(w.tape.Pick(3))*30*time.Second, s.boot)
	}
	w.run(w.person)
	w.run(w.script)
	if len(w.p.Office) > 0 {
		w.after(time.Minute, func() { w.run(w.office) }) // not at the same moment as those
	}
}

// offset draws how much a wall clock differs from the true time.
func (w *World) offset() time.Duration {
	return []time.Duration{0, w.p.Skew, -w.p.Skew, w.p.Skew / 3}[w.tape.Pick(4)]
}

// script is the course of a history: chaos, then calm. Whatever touches the world is done
// in the loop.
func (w *World) script() {
	steps := w.p.Pauses
	for w.now() < w.p.Chaos && !w.over() {
		var pause time.Duration
		w.inLoop(func() { pause = steps[w.tape.Pick(len(steps))] })
		w.sleep(pause)
		w.inLoop(w.step)
	}
	switch {
	case w.over():
	case w.p.Calm == 0:
		w.end()
	default:
		w.calm()
	}
}

// step is one thing that people do to servers.
func (w *World) step() {
	pick := w.tape.Pick
	s := w.servers[pick(len(w.servers))]
	what := pick(10)
	if what == 9 && w.market != nil && !w.traits.noDeaths {
		w.market.Kill()
		return
	}
	if what == 8 && w.market != nil {
		w.say("a CA revokes a certificate")
		w.market.Revoke()
		return
	}
	switch what {
	case 5, 6, 7:
		if w.p.FixedConfig {
			return
		}
		cfg := w.changed(w.servers[0].config, false)
		for _, s := range w.servers {
			delay := []time.Duration{0, time.Minute, time.Hour, day}[pick(4)]
			w.after(delay, func() {
				if !w.quiet {
					s.configure(cfg)
				}
			})
		}
	case 4:
		s.offset.Store(int64(w.offset()))
		w.say("server %d: the clock is wrong by %s", s.id, time.Duration(s.offset.Load()))
	case 3:
		w.crash(s, []time.Duration{5 * time.Second, time.Hour, 2 * day}[pick(3)])
	case 1, 2, 8, 9:
		if name := Names()[pick(len(Names()))]; s.up != nil {
			s.up.handshake(name)
		}
	}
}

// calm has one config and no faults. After a bound every name has its certificate.
func (w *World) calm() {
	var cfg Config
	w.inLoop(func() {
		w.quiet = true
		if w.market != nil {
			w.market.Calm()
		}
		cfg = w.changed(w.servers[0].config, true)
		w.say("calm, with %+v", cfg)
		for _, s := range w.servers {
			s.configure(cfg)
			s.boot()
		}
	})
	begin := w.now()
	w.sleep(w.p.Bound)
	for w.now() < begin+w.p.Calm && !w.over() {
		for _, s := range w.servers {
			var p *Process
			w.inLoop(func() { p = s.up })
			for _, name := range cfg.Names {
				if problem := s.serves(p, name); problem != "" {
					w.inLoop(func() {
						w.violate(NoCertificate, "%s at server %d, %.1f days after the calm began: %s; its orders: %s",
							name, s.id, (w.now()-begin).Hours()/24, problem, w.lost(name))
					})
					return
				}
			}
		}
		w.sleep(6 * time.Hour)
	}
	w.end()
}

// shutDown ends all goroutines.
func (w *World) shutDown() {
	for _, s := range w.servers {
		if s.up != nil {
			w.kill(s.up)
		}
	}
	for o := range w.open {
		w.finish(o, context.Canceled)
	}
	w.wg.Wait()
	if w.market != nil {
		w.market.Close()
	}
}

// logger writes into the trace, if somebody reads it.
func (w *World) logger(server int) *zap.Logger {
	if w.trace == nil {
		return zap.NewNop()
	}
	enc := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		MessageKey: "m", LevelKey: "l", NameKey: "n", EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeName: zapcore.FullNameEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, ConsoleSeparator: " ",
	})
	return zap.New(zapcore.NewCore(enc, traceWriter{w, server}, zap.DebugLevel))
}

// traceWriter is where a server's log goes.
type traceWriter struct {
	w      *World
	server int
}

func (t traceWriter) Write(b []byte) (int, error) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	t.w.say("server %d: %s", t.server, string(b[:max(0, len(b)-1)]))
	return len(b), nil
}

func (traceWriter) Sync() error { return nil }
