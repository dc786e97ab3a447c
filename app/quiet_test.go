package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestQuiet: what is pending is logged as information, and not as a failure; everything else stays
// as it is.
func TestQuiet(t *testing.T) {
	for what, pending := range map[string]struct {
		err   error
		quiet bool
	}{
		"pending":        {certmagic.ErrNoRetry{Err: &PendingError{errors.New("order 1 is being validated")}}, true},
		"said by func":   {certmagic.ErrNoRetry{Err: context.DeadlineExceeded}, true},
		"another error":  {certmagic.ErrNoRetry{Err: errors.New("refused")}, false},
		"only its text":  {certmagic.ErrNoRetry{Err: errors.New("[a] order 1 is being validated; " + PendingText)}, true},
		"errors of both": {certmagic.ErrNoRetry{Err: errors.Join(errors.New("x"), &PendingError{errors.New("y")})}, true},
	} {
		t.Run(what, func(t *testing.T) {
			core, logs := observer.New(zapcore.InfoLevel)
			told := new(events)
			ours := &issuer{key: "ours", err: pending.err}
			magic := newMagic(t, certmagic.Config{
				Issuers: []certmagic.Issuer{ours}, OnEvent: told.on, Logger: zap.New(core, zap.AddStacktrace(zapcore.ErrorLevel)),
			}, certmagic.CacheOptions{})
			isDeadline := func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
			for range 3 { // SetConfig is called twice, and a policy may have several issuers
				Quiet(magic, isDeadline)
			}
			if err := magic.ManageAsync(t.Context(), []string{"a.example.com"}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return ours.asks.Load() > 0 && len(logs.FilterMessage("releasing lock").All()) > 0 })
			// The job's end is logged after that.
			if !pending.quiet {
				waitFor(t, func() bool { return logs.FilterLevelExact(zapcore.ErrorLevel).Len() == 2 })
			}
			lines := logs.FilterMessage("certificate not ready yet").All()
			switch failed := told.count("cert_failed"); {
			case pending.quiet && (failed != 0 || len(lines) != 1 || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 0):
				t.Errorf("%d events, log %v", failed, logs.All())
			case !pending.quiet && (failed != 1 || len(lines) != 0):
				t.Errorf("%d events, log %v", failed, logs.All())
			}
			for _, line := range lines {
				if fields := line.ContextMap(); fields["during"] != "could not get certificate from issuer" || fields["error"] == nil ||
					fields["identifier"] != "a.example.com" || line.Stack != "" || line.Level != zapcore.InfoLevel {
					t.Errorf("line %v %v", line, fields)
				}
			}
		})
	}
}

// TestQuietMaintenance: certmagic's maintenance loses the type of the error; the renewal that it
// requests is quiet nevertheless.
func TestQuietMaintenance(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	told := new(events)
	ours := &issuer{key: "ours", err: certmagic.ErrNoRetry{Err: &PendingError{errors.New("order 1 is being validated")}}}
	magic := newMagic(t, certmagic.Config{
		Issuers: []certmagic.Issuer{ours}, OnEvent: told.on, Logger: zap.New(core),
	}, certmagic.CacheOptions{})
	Quiet(magic, nil)
	// certmagic remembers the names that failed for the whole process.
	name := fmt.Sprintf("maintained-%d.example.com", time.Now().UnixNano())
	deliver(t, magic, newCA(t, "ca"), "ours", name, time.Hour) // due
	if err := cacheOf(magic).RenewManagedCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return logs.FilterMessage("certificate not ready yet").Len() == 2 })
	lines := logs.FilterMessage("certificate not ready yet").All()
	if lines[0].Level != zapcore.InfoLevel || lines[1].Level != zapcore.DebugLevel || lines[1].ContextMap()["during"] != "job failed" {
		t.Errorf("lines %v", lines)
	}
	if logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 0 || told.count("cert_failed") != 0 || ours.asks.Load() != 1 {
		t.Errorf("log %v", logs.FilterLevelExact(zapcore.ErrorLevel).All())
	}
}

func TestObserve(t *testing.T) {
	magic := newMagic(t, certmagic.Config{}, certmagic.CacheOptions{})
	var seen []string
	for range 2 {
		Quiet(magic, nil).Observe("ours", func(_ context.Context, event string, names []string) {
			seen = append(seen, event+" "+strings.Join(names, ","))
		})
	}
	if magic.ShouldEmitFunc("tls_get_certificate") {
		t.Error("certmagic emits an event for each handshake, although nobody listens")
	}
	deliver(t, magic, newCA(t, "ca"), "ours", "a.example.com", year)
	if !slices.Equal(seen, []string{"cert_obtained a.example.com", "cached_managed_cert a.example.com"}) {
		t.Errorf("seen %q", seen)
	}
}
