package digicert

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestCheckConfig(t *testing.T) {
	change := func(f func(*vendors.OrderConfig)) vendors.OrderConfig {
		cfg := goodConfig()
		f(&cfg)
		return cfg
	}
	ov := func(c *vendors.OrderConfig) { c.Product = "ssl_basic" }
	without, with := newFake(t).orders, newFake(t, Options{OrganizationID: 7}).orders
	for _, cfg := range []vendors.OrderConfig{
		goodConfig(),
		change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 90} }),
		change(func(c *vendors.OrderConfig) { c.Term.Years = 3 }),
		change(func(c *vendors.OrderConfig) { c.Method = vendors.MethodDNS }),
		change(func(c *vendors.OrderConfig) { c.Product = "wildcard_dv_rapidssl" }),
	} {
		if err := errors.Join(without.CheckConfig(cfg), with.CheckConfig(cfg)); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if err := with.CheckConfig(change(ov)); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		cfg  vendors.OrderConfig
		want []string
	}{
		{change(func(c *vendors.OrderConfig) { c.Tech = &vendors.Contact{IDType: "SFZ", IDNumber: "1"} }), []string{"tech_contact: this vendor takes neither id_type"}},
		{vendors.OrderConfig{}, []string{"product: missing", "term: must be 1y to 3y"}},
		{change(ov), []string{"organization_id: missing; ssl_basic is not domain-validated"}},
		{change(func(c *vendors.OrderConfig) { c.Product = "RapidSSL DV" }), []string{`product: "RapidSSL DV" is not a product ID`}},
		{change(func(c *vendors.OrderConfig) { c.Term.Years = 4 }), []string{"term: must be 1y to 3y, got 4y"}},
		{change(func(c *vendors.OrderConfig) { c.Term.Days = 90 }), []string{"term: must be years or days, got 1y 90d"}},
		{change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: -1} }), []string{"term: "}},
		{change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 2000} }), []string{"term: must be 1d to 1096d"}},
		{change(func(c *vendors.OrderConfig) { c.Method = vendors.MethodHTTPS }), []string{`dcv: digicert does not know the method "https"`}},
		{change(func(c *vendors.OrderConfig) { c.Organization = new(vendors.Organization) }), []string{"give organization_id in the block of the vendor"}},
	} {
		err := without.CheckConfig(tt.cfg)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	const product, org = "GET /product/ssl_basic", "GET /organization/7"
	denied := refusal("access_denied|missing_permission")
	open := func() (*fake, vendors.OrderRequest) {
		f := newFake(t, Options{OrganizationID: 7})
		f.expect(product, "", 200, `{"name_id":"ssl_basic"}`)
		f.expect(org, "", 200, `{"id":7,"status":"active"}`)
		f.expect("GET /finance/balance", "", 200, `{"total_available_funds":"2454.00","currency":"USD"}`)
		f.expect("POST /finance/order-pricing", "*", 200, `{"total_price":782,"currency":"USD"}`)
		req := workedRequest()
		req.Product = "ssl_basic"
		return f, req
	}
	f, req := open()
	if err := f.orders.Validate(t.Context(), req); err != nil || len(f.calls) != 4 {
		t.Errorf("good order: %v after %v", err, f.calls)
	}
	for _, tt := range []struct {
		request string
		status  int
		body    string
		is      error // nil: none in particular
		text    string
	}{
		{product, 404, refusal("not_found|product"), nil, "not_found|product"},
		{product, 403, refusal("access_denied|access_denied_invalid_key"), vendors.ErrCredential, "invalid_key"},
		{org, 404, refusal("not_found|organization"), nil, "digicert organization: HTTP 404"},
		{org, 200, `{"id":7,"status":"inactive"}`, nil, "organization 7 is not active"},
	} {
		f, req := open()
		f.expect(tt.request, "", tt.status, tt.body)
		err := f.orders.Validate(t.Context(), req)
		if vendors.VerdictOf(err) != vendors.Permanent || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s %s: %v", tt.request, tt.body, err)
		}
	}
	for request, answer := range map[string]string{
		product: denied, org: denied, "GET /finance/balance": denied, "POST /finance/order-pricing": denied,
	} {
		f, req := open()
		f.expect(request, "*", 403, answer)
		if err := f.orders.Validate(t.Context(), req); err != nil || f.logs.FilterMessageSnippet("ordering without").Len() != 1 {
			t.Errorf("%s without the right to read it: %v", request, err)
		}
	}
	for _, funds := range []string{
		`{"unlimited_negative_balance":true}`, `{"total_available_funds":"1.00","currency":"EUR"}`, `{"total_available_funds":"1e999","currency":"USD"}`,
	} {
		f, req := open()
		f.expect("GET /finance/balance", "", 200, funds)
		if err := f.orders.Validate(t.Context(), req); err != nil || f.logs.FilterMessageSnippet("funds").Len() > 0 {
			t.Errorf("%s: %v", funds, err)
		}
	}
	// Funds that seem too low do not stop an order, because those of a contract are shown nowhere.
	for _, funds := range []string{"0", "781.99", "-5"} {
		f, req := open()
		f.expect("GET /finance/balance", "", 200, `{"total_available_funds":"`+funds+`","currency":"USD"}`)
		err := f.orders.Validate(t.Context(), req)
		warned := f.logs.FilterMessageSnippet("funds seem to be too low").All()
		if err != nil || len(warned) != 1 {
			t.Fatalf("%s: %v, %d warnings", funds, err, len(warned))
		}
		if told := warned[0].ContextMap(); told["available"] != funds+" USD" || told["estimated_price"] != "782 USD" {
			t.Errorf("%s: %v", funds, told)
		}
	}
	f, req = open()
	f.orders.options.PaymentMethod = payByProfile
	if err := f.orders.Validate(t.Context(), req); err != nil || f.calls["GET /finance/balance"] != 0 {
		t.Errorf("paid by profile: %v", err)
	}
}

func TestProducts(t *testing.T) {
	f := newFake(t)
	f.expect("GET /product", "", 200, `{"products":[
		{"name_id":"ssl_dv_geotrust_flex","name":"GeoTrust DV","type":"dv_ssl_certificate","validation_type":"dv","allowed_container_ids":[]},
		{"name_id":"client_premium","name":"Client","type":"client_certificate"},
		{"name_id":"ssl_basic","name":"Basic OV","type":"ssl_certificate","validation_type":"OV"}]}`)
	f.expect("POST /finance/order-pricing", "*", 200, `{"total_price":149,"currency":"USD"}`)
	got, err := f.orders.Products(t.Context())
	want := []vendors.Product{
		{Code: "ssl_dv_geotrust_flex", Name: "GeoTrust DV", Validation: "dv", Wildcard: true, Prices: map[int]string{12: "149 USD"}},
		{Code: "ssl_basic", Name: "Basic OV", Validation: "ov", Prices: map[int]string{12: "149 USD"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	f.expect("POST /finance/order-pricing", "*", 200, `{"total_price":0,"currency":"USD"}`)
	if got, err := f.orders.Products(t.Context()); err != nil || len(got) != 2 || len(got[0].Prices) != 0 {
		t.Errorf("no estimate: %+v, %v", got, err)
	}
}
