package hostile

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
)

// TestOrdinaryDay places orders on an ordinary day: some are answered properly and some
// are not, and some are charged without a proper answer.
func TestOrdinaryDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.SetSource(fault.Mild(1))
		good, lost := 0, 0
		for range 150 {
			form := orderForm(t, "comodo-positivessl", "", "a.example.com")
			before := len(b.Charges())
			resp, body, err := post(t.Context(), b.Transport(), "http://sandbox", "place", form)
			charged := len(b.Charges()) > before
			answered := err == nil && resp.StatusCode == 200
			switch {
			case answered && !charged:
				t.Fatalf("an order that was not charged: %s", body)
			case answered:
				good++
			case charged:
				lost++
			}
		}
		if good < 100 || lost < 1 || good+lost == 150 {
			t.Errorf("of 150 orders %d were answered, and %d charged without an answer", good, lost)
		}
		b.SetSource(nil)
		b.want(b.call("list", nil), 1)
	})
}

// TestNothingToShuffle: an answer without a body stays without one.
func TestNothingToShuffle(t *testing.T) {
	for _, kind := range []FaultKind{ExtraFields, Shuffled, Strange} {
		b := newBench(t, nil)
		b.Inject(Fault{Kind: kind})
		id := b.ordered("a.example.com")
		r := b.ask("PUT", "order/certificate/"+id+"/status", `{"status":"canceled","note":"x"}`)
		if r.status != 204 || r.raw != "" {
			t.Errorf("kind %d: %d %s", kind, r.status, r.raw)
		}
	}
}

func TestTooManyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.SetLimit(fault.DigiCertLimit)
		for range 100 {
			b.expectStatus(b.ask("GET", "finance/balance", ""), 200, "")
		}
		b.expectStatus(b.ask("GET", "finance/balance", ""), 429, "request_limit_exceeded")
		b.want(b.call("list", nil), 1) // another seller
		<-time.After(4 * time.Second)
		b.expectStatus(b.ask("GET", "finance/balance", ""), 429, "request_limit_exceeded")
		<-time.After(2 * time.Second)
		b.expectStatus(b.ask("GET", "finance/balance", ""), 200, "")
	})
}
