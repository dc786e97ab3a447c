package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// lostOrder leaves a world in which the answer to an order was lost a week ago, and the
// vendor cannot be asked about it. Whether there is an order depends on the phase in which
// the answer was lost.
func lostOrder(t *testing.T, name string, phase hostile.Phase) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: phase, Kind: hostile.Reset, Times: 1})
	w.ca.Inject(hostile.Fault{Endpoint: "certIdByrefId", Kind: hostile.HTML})
	s := w.start(w.simple(w.node, name))
	s.awaitEntry("a failed lookup", func(e logEntry) bool { return strings.Contains(e.raw, "looking up reference") })
	s.stop()

	// The lookups keep failing, but the order is flagged only after a week.
	entries := w.entries()
	if len(entries) != 1 || entries[0].State != ledger.Asked {
		t.Fatalf("the ledger does not have one order whose answer is missing: %+v", entries)
	}
	e := entries[0]
	e.Attempt.Started = e.Attempt.Started.AddDate(0, 0, -8)
	e.Revision++
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.storage, "commercial", "racent", w.account(), "entries", e.ID+".json")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestResolve: an order whose fate is unknown stops all buying, the log says what to do,
// and doing it brings the certificate.
func TestResolve(t *testing.T) {
	const name = "shop.localhost"
	for title, tt := range map[string]struct {
		phase  hostile.Phase
		orders int
		answer func(w *world) []string
	}{
		"there is an order": {hostile.AfterEffect, 1, func(w *world) []string { return []string{"--order", w.ca.Orders()[0].ID} }},
		"there is none":     {hostile.BeforeEffect, 0, func(*world) []string { return []string{"--none", "--yes"} }},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := lostOrder(t, name, tt.phase)
			w.charges(tt.orders)
			reference := w.entries()[0].Attempt.Reference

			placed := w.ca.Calls("place")
			s := w.start(w.simple(w.node, name))
			refusal := s.awaitEntry("the refusal", func(e logEntry) bool {
				return e.Level == "error" && strings.Contains(e.raw, "is not known whether")
			})
			for _, part := range []string{"racent", reference, "caddy commercial resolve " + name + " --order", "--none"} {
				if !strings.Contains(refusal.raw, part) {
					t.Errorf("the error does not name %q: %s", part, refusal.raw)
				}
			}
			if n := w.ca.Calls("place") - placed; n != 0 {
				t.Errorf("%d orders were placed without consent", n)
			}

			args := append([]string{"commercial", "resolve", name, "--config", s.config}, tt.answer(w)...)
			if slices.Contains(args, "--none") {
				w.fails(s, 1, "give --yes", "resolve", name, "--none") // there is no terminal
				w.charges(tt.orders)
				if e := w.entries()[0]; e.State != ledger.Asked {
					t.Fatalf("the order was given up without consent: %+v", e)
				}
			}
			if out, err := w.run(w.node, args...); err != nil {
				t.Fatalf("caddy %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			if out, err := w.run(w.node, "reload", "--config", s.config, "--force"); err != nil {
				t.Fatalf("caddy reload: %v\n%s", err, out)
			}
			s.served(name)
			w.charges(1)
			w.nothingForgotten()

			args[2] = "other.localhost"
			if out, err := w.run(w.node, args...); err == nil || !strings.Contains(out, "nothing to resolve") {
				t.Errorf("resolving a name that has no order: error %v\n%s", err, out)
			}
		})
	}
}
