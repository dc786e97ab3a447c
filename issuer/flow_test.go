package issuer

import (
	"testing"
	"testing/synctest"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

func TestFirstOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		got := w.start(nil, nil).mustObtain("example.com")
		if w.charges() != 1 {
			t.Errorf("charges = %d, want 1", w.charges())
		}
		e := w.entry("example.com")
		if e == nil || e.State != ledger.Issued || e.Certificate.Serial != serialOf(got.leaf()) || e.Issued != 1 {
			t.Errorf("entry = %+v", e)
		}
		w.noSecrets()
	})
}

// certmagic asks again for a name that is served: somebody forces a renewal.
func TestForcedRenewalIsReissue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.start(nil, nil)
		first, second := p.mustObtain("example.com"), p.mustObtain("example.com")
		if first.leaf().Equal(second.leaf()) {
			t.Error("the same certificate again")
		}
		if w.charges() != 1 || w.ca.Calls("replace") != 1 || w.ca.Calls("place") != 1 {
			t.Errorf("charges %d, place %d, replace %d", w.charges(), w.ca.Calls("place"), w.ca.Calls("replace"))
		}
	})
}

// A second server serves what the first has stored.
func TestSecondServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		first, second := w.start(nil, nil).mustObtain("example.com"), w.start(nil, nil).mustObtain("example.com")
		if !first.leaf().Equal(second.leaf()) || w.charges() != 1 || w.ca.Calls("replace") != 0 {
			t.Errorf("charges %d, replace %d", w.charges(), w.ca.Calls("replace"))
		}
	})
}
