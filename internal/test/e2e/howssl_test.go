package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// howsslIssuer buys from the world's CA in the dialect of HowSSL.
func (w *world) howsslIssuer(options string) string {
	return fmt.Sprintf(`issuer commercial {
	vendor howssl {env.E2E_TOKEN} {
		endpoint %s
		%s
		test_service
	}
	product comodo-positivessl
	poll 50ms 1s
	probe strict
}
`, strings.TrimSuffix(w.api, "/ssl"), options)
}

// TestTwoSteps: with a vendor where an order is first prepared and then paid for, each
// name is paid for once, whatever becomes of the answer to the payment.
func TestTwoSteps(t *testing.T) {
	const name = "shop.localhost"
	for title, fault := range map[string]*hostile.Fault{
		"undisturbed": nil,
		"answer lost": {Endpoint: "Order/commitOrder", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			if fault != nil {
				w.ca.Inject(*fault)
			}
			config := w.localGlobals(w.node) + site(name, w.howsslIssuer("create_order_field domains domains"))
			s := w.start(config)
			s.served(name)
			w.charges(1)
			if n := w.ca.Calls("Order/commitOrder"); n != 1 {
				t.Errorf("committed %d times", n)
			}
		})
	}
}

// TestOrderPreparedElsewhere: an order that a person created at the vendor is paid for
// once, and reissued for a key of ours.
func TestOrderPreparedElsewhere(t *testing.T) {
	const name = "shop.localhost"
	for title, fault := range map[string]*hostile.Fault{
		"undisturbed": nil,
		"answer lost": {Endpoint: "Order/commitOrder", Phase: hostile.AfterEffect, Kind: hostile.Reset, Times: 1},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			if fault != nil {
				w.ca.Inject(*fault)
			}
			id, err := w.ca.CreateAtHowSSL(apiToken, "comodo-positivessl", 1, name)
			if err != nil {
				t.Fatal(err)
			}
			s := w.start(w.localGlobals(w.node) + site(name, w.howsslIssuer("check_id "+id+" "+name)))
			s.served(name)
			w.charges(1)
			if n := w.ca.Calls("Order/commitOrder") + w.ca.Calls("Order/createOrder"); n != 1 {
				t.Errorf("committed and created %d times", n)
			}
			if n := w.ca.Calls("Reissue/submit"); n != 1 {
				t.Errorf("reissued %d times", n)
			}
		})
	}
}
