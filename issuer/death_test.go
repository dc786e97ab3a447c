package issuer

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// life takes a name through what these tests cover: a first order, a reissue within the term, and
// the order that follows when the term is almost over.
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
	time.Sleep(time.Minute)
	if p.fuse.burnt() {
		p.stop()
		p = next()
		if err := p.bootOne("example.com"); err != nil {
			return err
		}
	}
	time.Sleep(26 * time.Hour) // for what is tidied once a day
	return nil
}

// What a life may cost: a term and the next one, and one reissue.
const (
	termsInLife    = 2
	reissuesInLife = 1
)

// pointsOfDeath lists the contacts with the world in an undisturbed life. They are recorded from a
// run of the code, so a new step adds a new point by itself.
func pointsOfDeath(t *testing.T, start func(*world, *fuse, func(*flow)) *process, change func(*hostile.Config)) []string {
	var points []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		f := &fuse{left: -1}
		if err := w.life(start(w, f, nil), nil); err != nil {
			t.Fatal(err)
		}
		points = f.points
	})
	return points
}

// TestDeathAtEveryPoint kills a process at every contact with vendor and storage, and lets another
// one continue. A death costs no money, and no reissue either, because the key of a request is in
// storage before the request is sent.
func TestDeathAtEveryPoint(t *testing.T) {
	slow := func(c *hostile.Config) { c.SubmitDelay, c.IssueDelay = 30*time.Second, 2*time.Minute }
	for _, v := range vendorKinds {
		for speed, change := range map[string]func(*hostile.Config){"fast": nil, "slow": slow} {
			t.Run(v.name+" "+speed, func(t *testing.T) {
				t.Parallel()
				points := pointsOfDeath(t, v.start, change)
				if len(points) < 30 {
					t.Fatalf("only %d points of death; is anything recorded?", len(points))
				}
				calls := make(map[string]int) // since the last write
				for n, point := range points {
					if strings.Contains(point, " commercial/") {
						clear(calls)
					}
					if calls[point]++; calls[point] > 2 || n%raceStride != 0 {
						continue // one of many polls of a slow order
					}
					t.Run(strconv.Itoa(n), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							w := newWorld(t, change)
							f := &fuse{left: n}
							err := w.life(v.start(w, f, nil), func() *process { return v.start(w, nil, nil) })
							title := v.name + ", " + speed + " CA, death " + strings.ReplaceAll(f.points[len(f.points)-1], "/", " ")
							note(title, w, err)
							w.checkLife(t, title, err, v.blind, w.ca.Calls(v.reissue))
						})
					})
				}
			})
		}
	}
}

// checkLife checks what a life with a death in it has cost.
func (w *world) checkLife(t *testing.T, title string, err error, blind bool, reissues int) {
	t.Helper()
	if blind && is[*UncertainError](err) {
		// The process died between the entry and the payment. At this vendor, that cannot be told
		// apart from a payment that is still to come.
		if w.charges() > 1 {
			t.Errorf("%s: charges = %d", title, w.charges())
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", title, err)
	}
	// If that happens in the second term, the first order is reissued until it ends.
	tideOver := blind && reissues == reissuesInLife+1 && w.charges() <= termsInLife
	if w.charges() != termsInLife && !tideOver {
		t.Errorf("%s: charges = %d, want %d", title, w.charges(), termsInLife)
	}
	if reissues != reissuesInLife && !tideOver {
		t.Errorf("%s: %d reissues, want %d", title, reissues, reissuesInLife)
	}
	w.noForgottenOrders()
	w.noSecrets()
	if !blind {
		w.noKeysLeft()
	}
}

// TestTwoDeaths kills a second process while it clears up after the first.
func TestTwoDeaths(t *testing.T) {
	points := pointsOfDeath(t, (*world).start, nil)
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
