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
	"github.com/caddy-commercial/caddy-commercial/vendors"
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
func pointsOfDeath(t *testing.T, start starter, change func(*sandboxca.Config)) []string {
	var points []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		f := &fuse{left: -1}
		if err := w.life(start(w, f), nil); err != nil {
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
	for _, v := range allVendors {
		for speed, change := range map[string]func(*sandboxca.Config){"fast": nil, "slow": slow} {
			t.Run(v.name+" "+speed, func(t *testing.T) {
				t.Parallel()
				points := pointsOfDeath(t, v.start, change)
				if len(points) < 30 {
					t.Fatalf("only %d points of death; is anything recorded?", len(points))
				}
				for n, point := range points {
					if n%raceStride != 0 {
						continue
					}
					title := fmt.Sprintf("%s, %s CA, death %d %s", v.name, speed, n, strings.ReplaceAll(point, "/", " "))
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, change)
						err := w.life(v.start(w, &fuse{left: n}), func() *process { return v.start(w, nil) })
						note(t, title, w, err)
						if v.blind && is[*UncertainError](err) {
							// Death came between the record and the payment, which this
							// vendor cannot tell from a payment that it has yet to do.
							if w.charges() > 1 {
								t.Errorf("%s: charges = %d", title, w.charges())
							}
							return
						}
						if err != nil {
							t.Errorf("%s: %v", title, err)
						}
						if w.charges() != termsInLife {
							t.Errorf("%s: charges = %d, want %d", title, w.charges(), termsInLife)
						}
						w.noForgottenOrders()
						w.noSecrets()
					})
				}
			})
		}
	}
}

// TestTwoDeaths kills a second process while it clears up after the first.
func TestTwoDeaths(t *testing.T) {
	points := pointsOfDeath(t, startRacent, nil)
	for n := 0; n < len(points); n += raceStride {
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
	var recs []*Record
	for _, v := range allVendors {
		of, err := newLedger(w.storage, vendors.Description{Name: v.name, Account: "test"}).all(context.Background())
		if err != nil {
			w.tb.Fatal(err)
		}
		recs = append(recs, of...)
	}
	for _, rec := range recs {
		if rec.Order != nil {
			known[rec.Order.Reference], known[rec.Order.ID] = true, true
		}
		if rec.Attempt != nil {
			known[rec.Attempt.Reference] = true
		}
		for _, past := range rec.Past {
			known[past.Reference], known[past.ID] = true, true
		}
	}
	for _, charge := range w.ca.Charges() {
		if !known[charge.Reference] && !known[charge.OrderID] {
			w.tb.Errorf("order %s with reference %s was paid for and is forgotten", charge.OrderID, charge.Reference)
		}
	}
}
