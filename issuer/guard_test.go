package issuer

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// entryKey is where the newest entry for a name is in storage.
func (w *world) entryKey(name string) string {
	w.tb.Helper()
	return path.Join(ledger.Prefix("racent", "test"), "entries", w.entry(name).ID+".json")
}

// TestDamagedEntries: an entry that cannot be used is reported with its key, is not overwritten, and
// stops all purchases of the account, because nobody can tell which names it is for.
func TestDamagedEntries(t *testing.T) {
	damage := map[string]func(string) string{
		"truncated":     func(s string) string { return s[:len(s)/2] },
		"empty":         func(string) string { return "" },
		"garbage":       func(string) string { return "\x00\xff not JSON" },
		"null":          func(string) string { return "null" },
		"newer version": func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 3`, 1) },
		"no version":    func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 0`, 1) },
		"unknown state": func(s string) string { return strings.Replace(s, `"issued"`, `"pondering"`, 1) },
		"no order":      func(s string) string { return strings.Replace(s, `"order_id"`, `"disorder_id"`, 1) },
		"other ID":      func(s string) string { return strings.Replace(s, `"id": "`, `"id": "x`, 1) },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				first := w.start(nil, nil)
				first.mustObtain("example.com")
				first.stop()
				key := w.entryKey("example.com")
				whole := w.storage.snapshot()[key]
				damaged := change(whole)
				if damaged == whole {
					t.Fatal("nothing was damaged")
				}
				if err := w.storage.Store(t.Context(), key, []byte(damaged)); err != nil {
					t.Fatal(err)
				}
				p := w.start(nil, nil)
				for _, name := range []string{"example.com", "example.net"} {
					_, err := p.attempt(t.Context(), name)
					var broken *ledger.DamagedEntryError
					if !errors.As(err, &broken) || broken.Key != key || !strings.Contains(err.Error(), key) {
						t.Errorf("error for %s = %v", name, err)
					}
				}
				time.Sleep(2 * 24 * time.Hour)
				if got := w.storage.snapshot()[key]; got != damaged {
					t.Error("the damaged entry was overwritten")
				}
				if w.charges() != 1 {
					t.Errorf("charges = %d, want 1", w.charges())
				}
				// Once it is repaired, it continues where it was.
				if err := w.storage.Store(t.Context(), key, []byte(whole)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(7 * time.Hour)
				if p.site.serving("example.net") == nil || w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
				p.mustObtain("example.com")
				if w.charges() != 2 {
					t.Errorf("charges = %d, want 2", w.charges())
				}
			})
		})
	}
}

// TestUnknownFieldsInEntry: fields that a later build has added do no harm.
func TestUnknownFieldsInEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		first := w.start(nil, nil)
		first.mustObtain("example.com")
		first.stop()
		key := w.entryKey("example.com")
		var fields map[string]any
		if err := json.Unmarshal([]byte(w.storage.snapshot()[key]), &fields); err != nil {
			t.Fatal(err)
		}
		fields["news"] = map[string]any{"from": "the future"}
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.storage.Store(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
		p := w.start(nil, nil)
		p.mustObtain("example.com")
		p.mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

func TestOnDemandBuysNothingByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		p.site.strange = map[string]bool{"example.com": true}
		for range 3 {
			if _, err := p.attempt(t.Context(), "example.com"); err == nil || !strings.Contains(err.Error(), "allow_on_demand") {
				t.Fatalf("error = %v", err)
			}
			time.Sleep(time.Hour)
		}
		if w.charges() != 0 {
			t.Errorf("charges = %d", w.charges())
		}
		p.reload(func(f *flow) { f.rules.allowOnDemand = true })
		p.mustObtain("example.com")
		// What is paid for may be reissued from a handshake.
		p.reload(func(f *flow) { f.rules.allowOnDemand = false })
		p.mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
	})
}

// TestHoldOutlivesRestarts: when every order fails, attempts become rarer, although the process
// restarts before each of them.
func TestHoldOutlivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.ca.Inject(hostile.Fault{Endpoint: "place", Kind: hostile.HTML})
		for start := time.Now(); time.Since(start) < 3*24*time.Hour; {
			// A new process each time: what is remembered is in the storage.
			p := w.start(nil, nil)
			if _, err := p.attempt(t.Context(), "example.com"); err == nil {
				t.Fatal("a certificate came from nowhere")
			}
			time.Sleep(10 * time.Minute)
			p.stop()
		}
		// At once, after 10 minutes, 1 hour, 6 hours, and then daily.
		if calls := w.ca.Calls("place"); calls < 5 || calls > 8 {
			t.Errorf("%d paid calls in three days", calls)
		}
		if w.charges() != 0 {
			t.Errorf("charges = %d, want 0", w.charges())
		}
	})
}
