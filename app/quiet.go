package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// PendingText stands in the text of each PendingError. certmagic's maintenance formats
// errors with %v (maintain.go:284 of v0.25.6), and then the text is all that is left.
const PendingText = "the order goes on in the background"

// PendingError says that a certificate is not there yet, and that nothing needs to be
// done about it: the scheduler goes on. Err says where it stands; it must not be nil.
type PendingError struct{ Err error }

func (e *PendingError) Error() string { return e.Err.Error() + "; " + PendingText }

// Unwrap returns where it stands.
func (e *PendingError) Unwrap() error { return e.Err }

// Events tells what happens to the certificates of a config. Quiet returns it.
type Events struct {
	mu        sync.Mutex
	pending   []func(error) bool
	observers map[string]func(ctx context.Context, event string, names []string)
}

// Observe calls f after certmagic's events cert_obtained and cached_managed_cert, with
// the names that they are about, from whichever goroutine they come. Another f under the
// same key, such as an issuer's key, takes the place of the first.
func (e *Events) Observe(key string, f func(ctx context.Context, event string, names []string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.observers[key] = f
}

// Quiet keeps certmagic from reporting a pending certificate as a failure: warnings and
// errors about it are logged at a lower level, and the event cert_failed is not emitted.
// It also drops the stopgap of a name when a certificate of the config's issuers takes
// its place.
//
// An error is pending if it is a PendingError or has its text, or if pending, which may
// be nil, says so. Call it in an issuer's SetConfig: a config is wrapped once, however
// many issuers it has and however often they get it.
func Quiet(cfg *certmagic.Config, pending func(error) bool) *Events {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	quiet, done := cfg.Logger.Core().(*quietCore)
	if !done {
		quiet = &quietCore{Core: cfg.Logger.Core(), events: &Events{
			observers: make(map[string]func(context.Context, string, []string)),
		}}
		cfg.Logger = cfg.Logger.WithOptions(zap.WrapCore(func(zapcore.Core) zapcore.Core { return quiet }))
		quiet.events.wrap(cfg)
	}
	events := quiet.events
	if pending != nil {
		events.mu.Lock()
		events.pending = append(events.pending, pending)
		events.mu.Unlock()
	}
	return events
}

// isPending reports whether an error says only that something is not there yet.
func (e *Events) isPending(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*PendingError](err); ok || strings.Contains(err.Error(), PendingText) {
		return true
	}
	e.mu.Lock()
	pending := e.pending
	e.mu.Unlock()
	return slices.ContainsFunc(pending, func(is func(error) bool) bool { return is(err) })
}

// wrap puts itself between certmagic and whoever gets its events.
func (e *Events) wrap(cfg *certmagic.Config) {
	next := cfg.OnEvent
	if next == nil {
		next = func(context.Context, string, map[string]any) error { return nil }
		// Nobody else listens, so spare certmagic the events of each handshake.
		cfg.ShouldEmitFunc = func(event string) bool { return event == "cert_obtained" || event == "cached_managed_cert" }
	}
	cfg.OnEvent = func(ctx context.Context, event string, data map[string]any) error {
		if event == "cert_failed" {
			if err, ok := data["error"].(error); ok && e.isPending(err) {
				return nil
			}
		}
		err := next(ctx, event, data)
		var names []string
		switch event {
		case "cert_obtained":
			if name, ok := data["identifier"].(string); ok {
				names = []string{name}
			}
		case "cached_managed_cert":
			names, _ = data["sans"].([]string)
			dropReplacedStopgaps(cfg, names)
		default:
			return err
		}
		e.mu.Lock()
		observers := make([]func(context.Context, string, []string), 0, len(e.observers))
		for _, observe := range e.observers {
			observers = append(observers, observe)
		}
		e.mu.Unlock()
		for _, observe := range observers {
			observe(ctx, event, names)
		}
		return err
	}
}

// quietCore is a zapcore.Core that lowers the level of what is only pending.
type quietCore struct {
	zapcore.Core
	events *Events
}

// With implements zapcore.Core.
func (q *quietCore) With(fields []zapcore.Field) zapcore.Core {
	return &quietCore{Core: q.Core.With(fields), events: q.events}
}

// Check implements zapcore.Core. What could be lowered is judged in Write, where its
// fields are known.
func (q *quietCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Level != zapcore.WarnLevel && entry.Level != zapcore.ErrorLevel {
		return q.Core.Check(entry, checked)
	}
	if q.Enabled(entry.Level) {
		return checked.AddCore(entry, q)
	}
	return checked
}

// Write implements zapcore.Core.
func (q *quietCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	for _, field := range fields {
		err, ok := field.Interface.(error)
		if field.Type != zapcore.ErrorType || !ok || !q.events.isPending(err) {
			continue
		}
		// certmagic logs each failure when its issuer returns it and when its job ends.
		entry.Level = zapcore.InfoLevel
		if entry.Message == "job failed" {
			entry.Level = zapcore.DebugLevel
		}
		fields = append(slices.Clip(fields), zap.String("during", entry.Message))
		entry.Message, entry.Stack = "certificate not ready yet", ""
		break
	}
	if checked := q.Core.Check(entry, nil); checked != nil {
		checked.Write(fields...)
	}
	return nil
}

// Interface guards
var (
	_ error        = (*PendingError)(nil)
	_ error        = (*TornPairError)(nil)
	_ zapcore.Core = (*quietCore)(nil)
)
