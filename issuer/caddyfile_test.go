package issuer

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func parseIssuer(t *testing.T, text string) (*Issuer, error) {
	t.Helper()
	iss := new(Issuer)
	return iss, iss.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
}

func TestCaddyfileSetsEverything(t *testing.T) {
	got, err := parseIssuer(t, `commercial {
		vendor racent token {
			timeout 9s
		}
		product comodo-positivessl
		term 2y
		contact {
			first_name Ada
		}
		tech_contact {
			first_name Charles
		}
		billing_contact {
			first_name George
		}
		organization {
			name Engines
		}
		dcv https
		max_wait 30m
		poll 10s 5m
		renew_margin 20d
		settle 2s
		spend_limit 3 per 7d
		allow_on_demand
		watch 2h
		replace_ended_orders
		metrics_per_name
		order 1 a.example.com b.example.com
		order 2 c.example.com
		one_order d.example.com e.example.com
		one_order f.example.com g.example.com
		probe off
		http_port 8080
		bind 127.0.0.1 ::1
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Issuer{
		VendorRaw:      json.RawMessage(`{"api_token":"token","name":"racent","timeout":9000000000}`),
		Product:        "comodo-positivessl",
		Term:           "2y",
		Contact:        &vendors.Contact{FirstName: "Ada"},
		TechContact:    &vendors.Contact{FirstName: "Charles"},
		BillingContact: &vendors.Contact{FirstName: "George"},
		Organization:   &vendors.Organization{Name: "Engines"},
		DCV:            &DCV{Method: vendors.MethodHTTPS},
		MaxWait:        caddy.Duration(30 * time.Minute),
		PollMin:        caddy.Duration(10 * time.Second),
		PollMax:        caddy.Duration(5 * time.Minute),
		RenewMargin:    caddy.Duration(20 * 24 * time.Hour),
		Settle:         new(caddy.Duration(2 * time.Second)),
		SpendLimit:     &SpendLimit{Orders: 3, Per: caddy.Duration(7 * 24 * time.Hour)},
		AllowOnDemand:  true,
		Watch:          caddy.Duration(2 * time.Hour),

		ReplaceEndedOrders: true,
		MetricsPerName:     true,

		Orders:   []AdoptedOrder{{"1", []string{"a.example.com", "b.example.com"}}, {"2", []string{"c.example.com"}}},
		OneOrder: [][]string{{"d.example.com", "e.example.com"}, {"f.example.com", "g.example.com"}},
		Probe:    "off",
		HTTPPort: 8080,
		Bind:     []string{"127.0.0.1", "::1"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %+v, want %+v", got, want)
	}
	// The text above must not fall behind the struct.
	v := reflect.ValueOf(got).Elem()
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.IsExported() && v.Field(i).IsZero() {
			t.Errorf("no option of this test sets %s", field.Name)
		}
	}
}

func TestWatchOff(t *testing.T) {
	got, err := parseIssuer(t, "commercial {\n\twatch off\n}")
	if err != nil || got.Watch != -1 {
		t.Errorf("%v, %v", got.Watch, err)
	}
}

// TestShortVendorLeavesTheBlock: the block after the vendor's name in the first line
// is the issuer's.
func TestShortVendorLeavesTheBlock(t *testing.T) {
	got, err := parseIssuer(t, "commercial racent token {\n\tproduct comodo-positivessl\n}")
	if err != nil {
		t.Fatal(err)
	}
	if got.Product != "comodo-positivessl" || string(got.VendorRaw) != `{"api_token":"token","name":"racent"}` {
		t.Errorf("product %q, vendor %s", got.Product, got.VendorRaw)
	}
	if _, err := parseIssuer(t, "commercial racent token {\n\ttimeout 9s\n}"); err == nil || !strings.Contains(err.Error(), "unrecognized option 'timeout'") {
		t.Errorf("an option of the vendor in the issuer's block: %v", err)
	}
}

func TestUnclosedBlocks(t *testing.T) {
	for _, text := range []string{
		"commercial {\n",
		"commercial racent token {\n\tproduct x\n",
		"commercial {\n\tcontact {\n\t\tcity x\n",
		"commercial {\n\tvendor racent {\n\t\ttimeout 9s\n",
	} {
		if _, err := parseIssuer(t, text); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}
