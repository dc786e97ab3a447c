package howssl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	for input, want := range map[string]string{
		"howssl":                        `{}`,
		"howssl tok":                    `{"token":"tok"}`,
		"howssl {env.X}":                `{"token":"{env.X}"}`,
		"howssl {\n token {file./x}\n}": `{"token":"{file./x}"}`,
		"howssl tok {\n endpoint https://e\n timeout 90s\n account shop\n test_service\n}": `{"token":"tok","endpoint":"https://e","timeout":90000000000,"account":"shop","test_service":true}`,
		"howssl tok {\n create_order_field domains d\n create_order_field country c\n}":    `{"token":"tok","create_order_fields":{"country":"c","domains":"d"}}`,
		"howssl tok {\n check_id x a.example b.example\n check_id y c.example\n}":          `{"token":"tok","check_ids":[{"id":"x","names":["a.example","b.example"]},{"id":"y","names":["c.example"]}]}`,
	} {
		var h HowSSL
		if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(input)); err != nil {
			t.Errorf("%q: %v", input, err)
			continue
		}
		if got, err := json.Marshal(&h); err != nil || string(got) != want {
			t.Errorf("%q: got %s, %v", input, got, err)
		}
	}
	for input, want := range map[string]string{
		"howssl a b":                                   "unexpected argument 'b'",
		"howssl a {\n token b\n}":                      "option 'token' is given twice",
		"howssl {\n endpoint\n}":                       "option 'endpoint' needs an argument",
		"howssl {\n timeout soon\n}":                   "option 'timeout' must be a duration",
		"howssl {\n account a b\n}":                    "unexpected argument 'b'",
		"howssl {\n api_token x\n}":                    "unrecognized option 'api_token'",
		"howssl {\n test_service yes\n}":               "unexpected argument 'yes'",
		"howssl {\n create_order_field domains\n}":     "needs our name of the field and theirs",
		"howssl {\n create_order_field domains a b\n}": "needs our name of the field and theirs",
		"howssl {\n create_order_field domains a\n create_order_field domains b\n}": "given twice for 'domains'",
		"howssl {\n check_id x\n}":                 "needs the ID and the names",
		"howssl {\n check_id x a {\n b\n }\n}":     "takes no block",
		"howssl {\n create_order_field a b {\n}\n": "takes no block",
	} {
		err := new(HowSSL).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: %v, want %s", input, err, want)
		}
	}
}

func provision(t *testing.T, config string) (*HowSSL, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("tls.vendors.howssl", []byte(config))
	if err != nil {
		return nil, err
	}
	return mod.(*HowSSL), nil
}

func TestProvision(t *testing.T) {
	t.Setenv("HOWSSL_TEST_TOKEN", "tok")
	t.Setenv("HOWSSL_TEST_EMPTY", "")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const domains = `"create_order_fields":{"domains":"d"}`
	for _, tt := range []struct{ config, token, account, portal string }{
		{`{"token":"x",` + domains + `}`, "x", "api.howssl.com", "the HowSSL console"},
		{`{"token":"x","check_ids":[{"id":"c","names":["a.example"]}]}`, "x", "api.howssl.com", "the HowSSL console"},
		{`{"token":"{env.HOWSSL_TEST_TOKEN}","endpoint":"https://other.example/",` + domains + `}`, "tok", "other.example", "https://other.example"},
		{fmt.Sprintf(`{"token":"{file.%s}","account":"shop",%s}`, file, domains), "from-file", "api.howssl.com/shop", "the HowSSL console"},
		{`{"token":"x","endpoint":"http://127.0.0.1:82","test_service":true,` + domains + `}`, "x", "127.0.0.1:82", "http://127.0.0.1:82"},
	} {
		h, err := provision(t, tt.config)
		if err != nil {
			t.Errorf("%s: %v", tt.config, err)
			continue
		}
		want := vendors.Description{
			Name: "howssl", Account: tt.account, Portal: tt.portal,
			Methods:    []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS},
			CoversTwin: true, NeedsCommonName: true, Cancelling: cancelling, AbsenceAge: 15 * time.Minute, Pace: Pace,
		}
		if strings.Contains(tt.config, "test_service") {
			want.AbsenceAge, want.AnyName = 20*time.Second, true
		}
		if got := h.Describe(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.config, got, want)
		}
		if h.token != tt.token {
			t.Errorf("%s: token %q", tt.config, h.token)
		}
	}
	for config, want := range map[string]string{
		`{` + domains + `}`: "token: missing",
		`{"token":"{env.HOWSSL_TEST_EMPTY}",` + domains + `}`:              "token: placeholder {env.HOWSSL_TEST_EMPTY} is empty",
		`{"token":"{HOWSSL_TOKEN}",` + domains + `}`:                       "token: placeholder {HOWSSL_TOKEN} is unknown",
		`{"token":"x","endpoint":"http://api.howssl.com",` + domains + `}`: "endpoint: api.howssl.com would send the credential in the clear",
		`{"token":"x","test_service":true,` + domains + `}`:                "test_service: api.howssl.com is not on this machine",
		`{"token":"x","timeout":-1,` + domains + `}`:                       "timeout: must not be negative",
		`{"token":"x"}`: `create_order_field: the field domains has no name, and a guess may cost money; read the page ` +
			"kancloud.cn/howssl/api_certificate/2252015 on from company_address, where all known copies end, or ask HowSSL's support: " +
			`"What does /Home/Order/createOrder call the field that takes the domain, and is one name written into it as it is?" ` +
			"See docs/howssl.md. " +
			"Give the answer as: create_order_field domains <their field>; or list orders that were created at HowSSL as: check_id <id> <name...>",
		`{"token":"x","create_order_fields":{"country":"c"}}`:                      "create_order_field: the field domains has no name",
		`{"token":"x","create_order_fields":{"domain":"d"}}`:                       `there is no field "domain"; known fields are: product, term,`,
		`{"token":"x","create_order_fields":{"domains":" "}}`:                      `domains cannot be called ""; if the name is not known, read the page kancloud.cn/`,
		`{"token":"x","create_order_fields":{"domains":"Token"}}`:                  `domains cannot be called "Token"`,
		`{"token":"x","create_order_fields":{"domains":"csr"}}`:                    `csr and domains are both called "csr"; if a name is not known, read the page kancloud.cn/`,
		`{"token":"x","create_order_fields":{"domains":"d","dcv_method":"d"}}`:     `domains and dcv_method are both called "d"`,
		`{"token":"x","check_ids":[{"id":"c","names":["a.example","a.example"]}]}`: "a.example is a name of both c and c",
	} {
		if _, err := provision(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	o := newFake(t).orders
	change := func(f func(*vendors.OrderConfig)) vendors.OrderConfig {
		cfg := goodConfig()
		f(&cfg)
		return cfg
	}
	person := vendors.Contact{FirstName: "Ada", LastName: "Lovelace", Email: "a@b", Phone: "1", JobTitle: "Engineer"}
	for _, cfg := range []vendors.OrderConfig{
		goodConfig(),
		change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 730} }),
		change(func(c *vendors.OrderConfig) { c.Term.Years = 5 }),
		change(func(c *vendors.OrderConfig) { c.Contact = person }),
		change(func(c *vendors.OrderConfig) {
			c.Contact = person
			c.Organization = &vendors.Organization{Name: "n", Phone: "p", Address: "a", City: "c", State: "s"}
		}),
	} {
		if err := o.CheckConfig(cfg); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	for _, tt := range []struct {
		cfg  vendors.OrderConfig
		want []string
	}{
		{change(func(c *vendors.OrderConfig) { c.Tech = &vendors.Contact{IDType: "SFZ", IDNumber: "1"} }), []string{"tech_contact: this vendor takes neither id_type"}},
		{vendors.OrderConfig{}, []string{"product: missing", "term: must be 1y to 5y"}},
		{change(func(c *vendors.OrderConfig) { c.Term.Years = 6 }), []string{"term: "}},
		{change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 90} }), []string{"term: "}},
		{change(func(c *vendors.OrderConfig) { c.Term.Days = 365 }), []string{"term: "}},
		{change(func(c *vendors.OrderConfig) { c.Method = vendors.MethodHTTPS }), []string{`dcv: howssl does not know the method "https"`}},
		{change(func(c *vendors.OrderConfig) { c.Contact.Email = "a@b" }), []string{"contact: missing first_name, last_name, phone, job_title"}},
		{change(func(c *vendors.OrderConfig) { c.Organization = new(vendors.Organization) }),
			[]string{"contact: missing first_name", "organization: missing name, phone, address, city, state"}},
		{change(func(c *vendors.OrderConfig) { c.Contact.Country = "England" }), []string{"contact: country must be a two-letter code"}},
		{change(func(c *vendors.OrderConfig) { c.Organization = &vendors.Organization{Country: "44"} }), []string{"organization: country must be a two-letter code"}},
	} {
		err := o.CheckConfig(tt.cfg)
		if err == nil {
			t.Errorf("%v: no error", tt.want)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want %q", err, want)
			}
		}
	}
	// Orders that were created at HowSSL have a product.
	o.fields["domains"] = ""
	if err := o.CheckConfig(change(func(c *vendors.OrderConfig) { c.Product = "" })); err != nil {
		t.Error(err)
	}
}
