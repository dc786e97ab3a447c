package hostile

import (
	"context"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// TestCalendar checks the rules on the day they change and on the day before.
func TestCalendar(t *testing.T) {
	for _, c := range []struct {
		day          string
		days         int
		perspectives int
		missing      int // of them may fail
		parameters   bool
		clients      bool
	}{
		{"2026-03-14", 397, 3, 1, false, true},
		{"2026-03-15", 199, 4, 1, false, true},
		{"2026-12-14", 199, 4, 1, false, true},
		{"2026-12-15", 199, 6, 2, false, true},
		{"2027-02-28", 199, 6, 2, false, true},
		{"2027-03-01", 199, 6, 2, false, false},
		{"2027-03-14", 199, 6, 2, false, false},
		{"2027-03-15", 99, 6, 2, true, false},
		{"2028-03-15", 99, 6, 2, true, false},
		{"2029-03-14", 99, 6, 2, true, false},
		{"2029-03-15", 46, 6, 2, true, false},
	} {
		day, err := time.Parse(time.DateOnly, c.day)
		if err != nil {
			t.Fatal(err)
		}
		for _, missing := range []int{c.missing, c.missing + 1} {
			b := newBench(t, func(cfg *Config) {
				cfg.Calendar, cfg.Quirks.MissPerspectives, cfg.Quirks.NoTwin = true, missing, true
				cfg.LookupCAA = func(context.Context, string) ([]sandboxca.CAA, error) { return nil, nil }
			})
			b.clock.add(day.Sub(b.clock.Now()))
			id := b.placed("comodo-positivessl", "", "a.example.com")
			b.site.publish(b.info(id), "a.example.com")
			b.clock.add(time.Second)
			r := b.want(b.call("collect", map[string]string{"certId": id}), 1)
			if n := len(b.Fetches()); n%c.perspectives != 0 {
				t.Errorf("%s: %d fetches", c.day, n)
			}
			if missing > c.missing {
				if r.Status != StatusPending {
					t.Errorf("%s, %d miss: %s", c.day, missing, r.Status)
				}
				continue
			}
			if r.Status != StatusComplete {
				t.Errorf("%s, %d miss: %s", c.day, missing, r.Status)
				continue
			}
			leaf := parseCert(t, r.field("certificate"))
			clients := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
			if life := leaf.NotAfter.Sub(b.clock.Now()); life != time.Duration(c.days)*24*time.Hour || clients != c.clients {
				t.Errorf("%s: %s, for clients: %v", c.day, life, clients)
			}
		}
		b := newBench(t, func(cfg *Config) {
			cfg.Calendar = true
			cfg.LookupCAA = func(context.Context, string) ([]sandboxca.CAA, error) {
				return []sandboxca.CAA{{Tag: "issue", Value: "sectigo.com; validationmethods=dns-01"}}, nil
			}
		})
		b.clock.add(day.Sub(b.clock.Now()))
		id := b.placed("comodo-positivessl", "", "a.example.com")
		b.site.publish(b.info(id), "a.example.com")
		b.clock.add(time.Second)
		want := StatusComplete
		if c.parameters {
			want = StatusPending
		}
		if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != want {
			t.Errorf("%s, by a method that the CAA record does not allow: %s", c.day, r.Status)
		}
	}
}

// TestValidationIsReused: DigiCert does not check a name again that it validated
// recently, counted from that check.
func TestValidationIsReused(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		start string
		days  int
	}{{"2026-08-01", 200}, {"2027-03-15", 100}, {"2029-03-15", 10}} {
		start, err := time.Parse(time.DateOnly, c.start)
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, func(cfg *Config) { cfg.Calendar = true })
		b.clock.add(start.Sub(b.clock.Now()))
		order := func(want string, names ...string) {
			t.Helper()
			id := b.ordered(names...)
			if got := b.ask("GET", "order/certificate/"+id, ""); got.status != 200 || got.text("status") != want {
				t.Errorf("%s, %s: %s", c.start, b.clock.Now(), got.raw)
			}
		}
		id := b.ordered("example.com")
		b.expectStatus(b.proven(id, "example.com"), 200, "")
		b.clock.add(time.Duration(c.days)*day - time.Minute)
		order("issued", "example.com")
		order("pending", "example.com", "example.org")
		b.clock.add(time.Minute) // the previous order did not check the name again
		order("pending", "example.com")
	}
}
