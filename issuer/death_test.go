package issuer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// life is what a name goes through in the test of deaths: a first order, a reissue
// within the term, and the order that follows when the term is almost over.
func (w *world) life(p *process, next func() *process) error {
	for _, wait := range []time.Duration{0, 138 * 24 * time.Hour, 198 * 24 * time.Hour} {
		p.rest(wait)
		got, q, err := w.drive(p, "example.com", next)
		if err != nil {
			return err
		}
		w.verify(got, "example.com")
		p = q
	}
	p.rest(time.Hour)
	return nil
}

// What a life may cost: a term and the next one, and one reissue.
const (
	termsInLife    = 2
	reissuesInLife = 1
)

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
// has another one go on. A death costs no money, and no reissue either unless it fell
// between the vendor's doing and our hearing of it: the key of a request is in storage
// before the request is sent.
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
					t.Run(point, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							w := newWorld(t, change)
							err := w.life(v.start(w, &fuse{left: n}), func() *process { return v.start(w, nil) })
							note(title, w, err)
							if v.blind && is[*UncertainError](err) {
								// Death came between the entry and the payment, which this
								// vendor cannot tell from a payment that it has yet to do.
								if w.charges() > 1 {
									t.Errorf("charges = %d", w.charges())
								}
								return
							}
							if err != nil {
								t.Error(err)
							}
							if w.charges() != termsInLife {
								t.Errorf("charges = %d, want %d", w.charges(), termsInLife)
							}
							if n := w.ca.Calls(v.reissue); n != reissuesInLife {
								t.Errorf("%d reissues, want %d", n, reissuesInLife)
							}
							w.noForgottenOrders()
							w.noSecrets()
						})
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
				note(fmt.Sprintf("death %d and then %d", n, m), w, err)
				if err != nil || w.charges() != termsInLife {
					t.Errorf("death at %d (%s) and then at %d: charges = %d, error %v", n, points[n], m, w.charges(), err)
				}
				w.noForgottenOrders()
			})
		}
	}
}
