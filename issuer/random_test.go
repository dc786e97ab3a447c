package issuer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

var weeks = flag.Uint64("weeks.n", 40, "how many random histories TestRandomWeeks has of each vendor")

// TestRandomWeeks has each real vendor at the sandbox through weeks of its days: calls are
// lost and spoilt at any place, servers stop and die at any contact, two of them work at a
// time, and the CA takes its time. In the end all names are served, each was paid for once,
// and a person was asked only where nothing else can tell.
func TestRandomWeeks(t *testing.T) {
	n := *weeks
	if raceEnabled {
		n /= raceStride
	}
	for i, v := range vendorKinds {
		for seed := range n {
			inBubble(t, fmt.Sprintf("%s, seed %d", v.name, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(i), seed))
				w := newWorld(t, func(c *hostile.Config) {
					c.SubmitDelay = pick(r, 0, time.Minute, 3*time.Hour)
					c.IssueDelay = pick(r, 0, time.Hour, 30*time.Hour)
				})
				names := []string{"a.example.com", "b.example.org", "c.example.net"}[:1+r.IntN(3)]
				servers := make([]*process, 1+r.IntN(2))
				var mend []func()
				start := func(i int, f *fuse) {
					if servers[i] != nil {
						servers[i].stop()
					}
					servers[i] = v.start(w, f, quickly)
					servers[i].configure(names...)
				}
				for range 20 + r.IntN(20) {
					i := r.IntN(len(servers))
					switch r.IntN(4) {
					case 0:
						start(i, nil)
					case 1:
						start(i, &fuse{left: r.IntN(120)})
					case 2, 3:
						mend = append(mend, w.ca.Inject(randomFault(r)))
					}
					time.Sleep(time.Duration(r.Int64N(int64(pick(r, time.Minute, time.Hour, 12*time.Hour)))))
				}
				for _, f := range mend {
					f()
				}
				for i := range servers {
					start(i, nil)
				}
				time.Sleep(2 * day)
				w.decide(names)
				for i := range servers {
					start(i, nil)
				}
				servers[0].untilServed(9*day, names...)
				for _, name := range names {
					paid := 0
					for _, c := range w.ca.Charges() {
						if slices.Contains(c.Names, name) {
							paid++
						}
					}
					if paid != 1 {
						t.Errorf("%s was paid for %d times", name, paid)
					}
				}
				w.noSecrets()
			})
		}
	}
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// randomFault hits some calls, of whatever kind they are.
func randomFault(r *rand.Rand) hostile.Fault {
	return hostile.Fault{
		Phase: pick(r, hostile.BeforeEffect, hostile.AfterEffect),
		Kind: pick(r, hostile.HTTPStatus, hostile.HTML, hostile.Empty, hostile.CutOff, hostile.BadJSON, hostile.Hang, hostile.Reset,
			hostile.Huge, hostile.Redirect, hostile.ExtraFields, hostile.Shuffled, hostile.Strange, hostile.Delay),
		Status: pick(r, 400, 408, 429, 500, 502, 503),
		Delay:  pick(r, 0, time.Second, time.Minute),
		Seed:   r.Uint64(),
		Skip:   r.IntN(4),
		Times:  1 + r.IntN(8),
	}
}

// decide does what the log asks a person for: it looks into the vendor's portal.
func (w *world) decide(names []string) {
	w.tb.Helper()
	for _, name := range names {
		e := w.entry(name)
		if e == nil || e.Flag == nil {
			continue
		}
		answer := ledger.Resolution{None: true}
		for _, c := range w.ca.Charges() {
			if slices.Contains(c.Names, name) {
				answer = ledger.Resolution{OrderID: c.OrderID}
			}
		}
		if _, err := ledger.Resolve(w.ctx, w.storage, name, answer); err != nil {
			w.tb.Errorf("resolving %s by %+v: %v", name, answer, err)
		}
	}
}
