package issuer

import (
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestReloadInEachPhase: whatever a new configuration says, and whenever it comes, a name is paid
// for once and is served.
func TestReloadInEachPhase(t *testing.T) {
	slowly := func(endpoint string, phase hostile.Phase) func(*world) {
		return func(w *world) {
			w.ca.Inject(hostile.Fault{Endpoint: endpoint, Phase: phase, Kind: hostile.Delay, Delay: 8 * time.Second, Times: 1})
		}
	}
	phases := []struct {
		name string
		set  func(*world)
		at   time.Duration // since the name was asked for
	}{
		{"while it is checked", slowly("validate", hostile.BeforeEffect), 4 * time.Second},
		{"before it is sent", nil, 500 * time.Millisecond},
		{"while it is on its way", slowly("place", hostile.BeforeEffect), 5 * time.Second},
		{"while the answer is on its way", slowly("place", hostile.AfterEffect), 5 * time.Second},
		{"when the answer was lost", func(w *world) {
			w.ca.Inject(hostile.Fault{Endpoint: "place", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})
		}, 3 * time.Second},
		{"while it is pending", nil, 10 * time.Minute},
		{"when it is issued", nil, 2 * time.Hour},
	}
	changes := map[string]func(*flow){
		"nothing":          func(*flow) {},
		"group":            group("example.net", "example.com"),
		"term":             func(f *flow) { f.order.Term = vendors.Term{Years: 2} },
		"product":          func(f *flow) { f.order.Product = "comodo-ssl" },
		"margin":           func(f *flow) { f.rules.renewMargin = 1000 * day },
		"order, unknown":   func(f *flow) { f.rules.adopted = []AdoptedOrder{{"260101aaaaaaaaaa", []string{"example.com"}}} },
		"settle, longer":   func(f *flow) { f.rules.settle = 20 * time.Second },
		"limit, lower":     func(f *flow) { f.rules.spend.Orders = 1 },
		"no on-demand":     func(f *flow) { f.rules.allowOnDemand = false },
		"proof, no more":   func(f *flow) { f.prove = refusingProver{f.prove, map[string]bool{"example.com": true}} },
		"gone for a while": nil, // another vendor takes over meanwhile
	}
	for _, phase := range phases {
		for name, change := range changes {
			inBubble(t, name+" "+phase.name, func(t *testing.T) {
				w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = time.Hour })
				if phase.set != nil {
					phase.set(w)
				}
				p := w.start(nil, quickly)
				before := *p.flow
				p.configure("example.com")
				time.Sleep(phase.at)
				if change != nil {
					p.reload(change)
				} else {
					p.stop()
				}
				time.Sleep(day)
				if w.charges() > 1 {
					w.wantCharges(1)
				}
				// And back again.
				p.reload(func(f *flow) { *f = before })
				p.untilServed(day, "example.com")
				w.wantCharges(1)
				w.allKnown()
			})
		}
	}
}
