package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// certmagicRetries are the waits between attempts that certmagic makes after
// errors, shortened to one of each length.
var certmagicRetries = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute,
	30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 6 * time.Hour, 6 * time.Hour,
}

// drive attempts as certmagic does, until there is a certificate or the last retry
// failed. When a process dies, next makes the one that goes on.
func (w *world) drive(p *process, name string, next func() *process) (chain, *process, error) {
	var last error
	for i := 0; i <= len(certmagicRetries); i++ {
		got, err := p.attempt(context.Background(), name)
		if err == nil {
			return got, p, nil
		}
		last = err
		if p.fuse.burnt() {
			p = next()
			i--
			continue
		}
		if _, final := errors.AsType[certmagic.ErrNoRetry](err); final && i >= 2 {
			return nil, p, err // maintenance would ask for ever; three times will do
		}
		if i < len(certmagicRetries) {
			time.Sleep(certmagicRetries[i])
		}
	}
	return nil, p, last
}

// life is what a name goes through in the test of deaths: a first order, a reissue
// within the term, and the order that follows when the term is over.
func (w *world) life(p *process, next func() *process) error {
	for _, wait := range []time.Duration{0, 130 * 24 * time.Hour, 210 * 24 * time.Hour} {
		time.Sleep(wait)
		got, q, err := w.drive(p, "example.com", next)
		if err != nil {
			return err
		}
		w.verify(got, "example.com")
		p = q
	}
	return nil
}

// termsInLife is how many terms are used in a life, and so what it may cost.
const termsInLife = 2

// pointsOfDeath lists the contacts with the world in an undisturbed life. They are
// generated from what the code does, so a new step is a new point by itself.
func pointsOfDeath(t *testing.T, change func(*sandboxca.Config)) []string {
	var points []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		f := &fuse{left: -1}
		if err := w.life(w.start(f, nil), nil); err != nil {
			t.Fatal(err)
		}
		points = f.points
	})
	return points
}

// TestDeathAtEveryPoint kills a process at every contact with vendor and storage, and
// has another one go on.
func TestDeathAtEveryPoint(t *testing.T) {
	slow := func(c *sandboxca.Config) { c.SubmitDelay, c.IssueDelay = 30*time.Second, 2*time.Minute }
	for name, change := range map[string]func(*sandboxca.Config){"fast CA": nil, "slow CA": slow} {
		points := pointsOfDeath(t, change)
		if len(points) < 30 {
			t.Fatalf("only %d points of death; is anything recorded?", len(points))
		}
		for n, point := range points {
			title := fmt.Sprintf("%s, death %d %s", name, n, strings.ReplaceAll(point, "/", " "))
			t.Run(title, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, change)
					err := w.life(w.start(&fuse{left: n}, nil), func() *process { return w.start(nil, nil) })
					note(t, title, w, err)
					if err != nil {
						t.Error(err)
					}
					if w.charges() != termsInLife {
						t.Errorf("charges = %d, want %d", w.charges(), termsInLife)
					}
					w.noForgottenOrders()
					w.noSecrets()
				})
			})
		}
	}
}

// TestTwoDeaths kills a second process while it clears up after the first.
func TestTwoDeaths(t *testing.T) {
	points := pointsOfDeath(t, nil)
	step := 1
	if testing.Short() {
		step = 5
	}
	for n := 0; n < len(points); n += step {
		for m := 0; m < 12; m += 2 {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				deaths := 0
				err := w.life(w.start(&fuse{left: n}, nil), func() *process {
					if deaths++; deaths == 1 {
						return w.start(&fuse{left: m}, nil)
					}
					return w.start(nil, nil)
				})
				note(t, fmt.Sprintf("death %d and then %d", n, m), w, err)
				if err != nil || w.charges() != termsInLife {
					t.Errorf("death at %d (%s) and then at %d: charges = %d, error %v", n, points[n], m, w.charges(), err)
				}
				w.noForgottenOrders()
			})
		}
	}
}

// noForgottenOrders fails if the CA has an order that was paid for and that the ledger
// does not know.
func (w *world) noForgottenOrders() {
	w.tb.Helper()
	known := make(map[string]bool)
	recs, err := newLedger(w.storage, w.about()).all(context.Background())
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, rec := range recs {
		if rec.Order != nil {
			known[rec.Order.Reference] = true
		}
		if rec.Attempt != nil {
			known[rec.Attempt.Reference] = true
		}
		for _, past := range rec.Past {
			known[past.Reference] = true
		}
	}
	for _, charge := range w.ca.Charges() {
		if !known[charge.Reference] {
			w.tb.Errorf("order %s with reference %s was paid for and is forgotten", charge.OrderID, charge.Reference)
		}
	}
}
