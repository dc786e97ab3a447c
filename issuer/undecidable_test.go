package issuer

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestContradictingWitnessesAreForAPerson: if a lost order cannot be found by its reference, while
// an order without one exists, a person must decide, unless time resolves it.
func TestContradictingWitnessesAreForAPerson(t *testing.T) {
	for name, settles := range map[string]bool{"for good": false, "for a minute": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(cfg *hostile.Config) {
					cfg.Quirks.DigiCert = hostile.DigiCertQuirks{HideAlternate: true, Anonymous: true}
				})
				defer w.ca.Inject(hostile.Fault{Endpoint: "order", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1})()
				if settles {
					defer time.AfterFunc(time.Minute, func() {
						if err := w.ca.Update(func(cfg *hostile.Config) { cfg.Quirks.DigiCert = hostile.DigiCertQuirks{} }); err != nil {
							t.Error(err)
						}
					}).Stop()
				}
				started := time.Now()
				p := w.startDigiCert(nil, nil)
				got, err := p.attempt(context.Background(), "example.com")
				if settles {
					if err != nil {
						t.Fatal(err)
					}
					w.verify(got, "example.com")
				} else {
					if !isFinal(err) || !is[*UncertainError](err) || !strings.Contains(err.Error(), "without a reference") {
						t.Errorf("%v", err)
					}
					if waited := time.Since(started); waited < 5*time.Minute {
						t.Errorf("given up after %v", waited)
					}
					if e := w.entry("example.com"); e.State != ledger.Asked || e.Flag == nil {
						t.Errorf("entry = %+v", e)
					}
				}
				if w.charges() != 1 {
					t.Errorf("paid %d orders", w.charges())
				}
			})
		})
	}
}
