package racent

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
		"racent":                            `{}`,
		"racent tok":                        `{"api_token":"tok"}`,
		"racent {env.X}":                    `{"api_token":"{env.X}"}`,
		"racent {\n api_token {file./x}\n}": `{"api_token":"{file./x}"}`,
		"racent tok {\n endpoint https://e/s\n timeout 90s\n account shop\n}":                  `{"api_token":"tok","endpoint":"https://e/s","timeout":90000000000,"account":"shop"}`,
		"racent tok {\n server iis7\n verification_document {env.DIR}/a.pdf\n test_service\n}": `{"api_token":"tok","test_service":true,"server":"iis7","verification_document":"{env.DIR}/a.pdf"}`,
	} {
		var r Racent
		if err := r.UnmarshalCaddyfile(caddyfile.NewTestDispenser(input)); err != nil {
			t.Errorf("%q: %v", input, err)
			continue
		}
		if got, err := json.Marshal(&r); err != nil || string(got) != want {
			t.Errorf("%q: got %s, %v", input, got, err)
		}
	}
	for input, want := range map[string]string{
		"racent a b":                         "unexpected argument 'b'",
		"racent a {\n api_token b\n}":        "option 'api_token' is given twice",
		"racent {\n endpoint\n}":             "option 'endpoint' needs an argument",
		"racent {\n timeout soon\n}":         "option 'timeout' must be a duration",
		"racent {\n account a b\n}":          "unexpected argument 'b'",
		"racent {\n token x\n}":              "unrecognized option 'token'",
		"racent {\n endpoint a {\n b\n }\n}": "takes no block",

		"racent tok {\n domain_verification_document a.pdf\n}": "VERIFY_DOCUMENT",
		"racent tok {\n dcv_email admin@example.com\n}":        "Caddy has no inbox",
		"racent tok {\n private_key a.pem\n}":                  "they do not leave it",
	} {
		err := new(Racent).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: %v, want %s", input, err, want)
		}
	}
}

func provision(t *testing.T, config string) (*Racent, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("tls.vendors.racent", []byte(config))
	if err != nil {
		return nil, err
	}
	return mod.(*Racent), nil
}

func TestProvision(t *testing.T) {
	t.Setenv("RACENT_TEST_TOKEN", "tok")
	t.Setenv("RACENT_TEST_EMPTY", "")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ config, token, account, portal string }{
		{`{"api_token":"x"}`, "x", "portal.racent.com", "https://portal.racent.com"},
		{`{"api_token":"{env.RACENT_TEST_TOKEN}","endpoint":"https://portal.nicsrs.com/ssl/"}`, "tok", "portal.nicsrs.com", "https://portal.nicsrs.com"},
		{fmt.Sprintf(`{"api_token":"{file.%s}","account":"shop"}`, file), "from-file", "portal.racent.com/shop", "https://portal.racent.com"},
		{`{"api_token":"x","endpoint":"http://127.0.0.1:81"}`, "x", "127.0.0.1:81", "http://127.0.0.1:81"},
		{`{"api_token":"x","endpoint":"http://127.0.0.1:82","test_service":true}`, "x", "127.0.0.1:82", "http://127.0.0.1:82"},
	} {
		r, err := provision(t, tt.config)
		if err != nil {
			t.Errorf("%s: %v", tt.config, err)
			continue
		}
		want := vendors.Description{
			Name: "racent", Account: tt.account, Portal: tt.portal,
			Methods:    []vendors.Method{vendors.MethodHTTP, vendors.MethodHTTPS, vendors.MethodDNS},
			CoversTwin: true, NeedsCommonName: true, NeedsUnique: true, Cancelling: cancelling, Revoking: revoking, CancelWithin: cancelWithin,
			AbsenceAge: 10 * time.Minute, RenewWindow: 90 * 24 * time.Hour, RenewKeepsProduct: true,
		}
		if strings.Contains(tt.config, "test_service") {
			want.AbsenceAge, want.AnyName = 20*time.Second, true
		}
		if got := r.Describe(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.config, got, want)
		}
		if r.token != tt.token {
			t.Errorf("%s: token %q", tt.config, r.token)
		}
	}
	for config, want := range map[string]string{
		`{}`: "api_token: missing",
		`{"api_token":"{env.RACENT_TEST_UNSET}"}`:                 "api_token: placeholder {env.RACENT_TEST_UNSET} is empty",
		`{"api_token":"{env.RACENT_TEST_EMPTY}"}`:                 "api_token: placeholder {env.RACENT_TEST_EMPTY} is empty",
		`{"api_token":"{RACENT_TOKEN}"}`:                          "api_token: placeholder {RACENT_TOKEN} is unknown",
		`{"api_token":"x","endpoint":"http://portal.racent.com"}`: "endpoint: portal.racent.com would send the credential in the clear",
		`{"api_token":"x","endpoint":"{env.RACENT_TEST_UNSET}"}`:  "endpoint: placeholder",
		`{"api_token":"x","test_service":true}`:                   "test_service: portal.racent.com is not on this machine",
		`{"api_token":"x","timeout":-1}`:                          "timeout: must not be negative",

		`{"api_token":"x","server":"caddy"}`:                                  "server: must be one of",
		`{"api_token":"x","verification_document":"{env.RACENT_TEST_UNSET}"}`: "verification_document: placeholder",
		`{"api_token":"x","verification_document":"/none.pdf"}`:               "verification_document: ",
		`{"api_token":"x","domain_verification_document":"/none.pdf"}`:        "unknown field",
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
	for _, cfg := range []vendors.OrderConfig{
		goodConfig(),
		change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 730} }),
		change(func(c *vendors.OrderConfig) { c.Term.Years = 6 }),
		change(func(c *vendors.OrderConfig) { c.Tech = &c.Contact; c.Billing = &c.Contact }),
		change(func(c *vendors.OrderConfig) { c.Organization = organizationOf("", "") }),
		change(func(c *vendors.OrderConfig) { c.Organization = organizationOf("", "HRB 1") }),
		change(func(c *vendors.OrderConfig) { c.Product, c.Organization = "cfca", organizationOf("TYDMZ", "9131") }),
		change(func(c *vendors.OrderConfig) { c.Product, c.Organization = "cfca", organizationOf("OTHERS", "9131") }),
		change(func(c *vendors.OrderConfig) { c.Product, c.Contact.IDType, c.Contact.IDNumber = "cfca", "SFZ", "1" }),
		change(func(c *vendors.OrderConfig) { c.Product, c.Contact.IDType, c.Contact.IDNumber = "cfca", "HZ", "1" }),
	} {
		if err := o.CheckConfig(cfg); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	all := "missing first_name, last_name, email, phone, organization, job_title, address, city, state, postal_code, country"
	for _, tt := range []struct {
		cfg  vendors.OrderConfig
		want []string
	}{
		{vendors.OrderConfig{}, []string{"product: missing", "term: must be 1y to 6y", "contact: " + all}},
		{change(func(c *vendors.OrderConfig) { c.Term.Years = 7 }), []string{"term: must be 1y to 6y, got 7y"}},
		{change(func(c *vendors.OrderConfig) { c.Term = vendors.Term{Days: 90} }), []string{"term: must be whole years"}},
		{change(func(c *vendors.OrderConfig) { c.Term.Days = 365 }), []string{"term: must be whole years"}},
		{change(func(c *vendors.OrderConfig) { c.Term.Years = -1 }), []string{"term: "}},
		{change(func(c *vendors.OrderConfig) { c.Method = "email" }), []string{`dcv: racent does not know the method "email"`}},
		{change(func(c *vendors.OrderConfig) { c.Contact.Country = "Germany" }), []string{"contact: country must be a two-letter code"}},
		{change(func(c *vendors.OrderConfig) { c.Contact.Country = "1x" }), []string{"contact: country"}},
		{change(func(c *vendors.OrderConfig) { c.Contact.City = " "; c.Contact.Email = "" }), []string{"contact: missing email, city"}},
		{change(func(c *vendors.OrderConfig) { c.Tech = new(vendors.Contact) }), []string{"tech_contact: " + all}},
		{change(func(c *vendors.OrderConfig) { c.Billing = new(vendors.Contact) }), []string{"billing_contact: " + all}},
		{change(func(c *vendors.OrderConfig) { c.Product, c.Contact.IDType = "cfca", "SFZ" }), []string{"contact: id_type SFZ needs id_number beside it"}},
		{change(func(c *vendors.OrderConfig) { c.Product, c.Contact.IDNumber = "cfca", "1" }), []string{`contact: id_type must be SFZ or HZ, got ""`}},
		{change(func(c *vendors.OrderConfig) { c.Product, c.Contact.IDType, c.Contact.IDNumber = "cfca", "sfz", "1" }), []string{`contact: id_type must be SFZ or HZ, got "sfz"`}},
		{change(func(c *vendors.OrderConfig) { c.Contact.IDType, c.Contact.IDNumber = "SFZ", "1" }), []string{"contact: identity documents are for products of CFCA, and comodo-positivessl is not one"}},
		{change(func(c *vendors.OrderConfig) { c.Product, c.Organization = "cfca", organizationOf("SFZ", "1") }), []string{`organization: id_type must be TYDMZ or OTHERS, got "SFZ"`}},
		{change(func(c *vendors.OrderConfig) { c.Product, c.Organization = "cfca", organizationOf("OTHERS", "") }), []string{"organization: id_type OTHERS needs registration_number beside it"}},
		{change(func(c *vendors.OrderConfig) { c.Organization = organizationOf("OTHERS", "1") }), []string{"organization: identity documents"}},
		{change(func(c *vendors.OrderConfig) {
			c.Organization = organizationOf("", "")
			c.Organization.Country = "Germany"
		}), []string{"organization: country must be"}},
		{change(func(c *vendors.OrderConfig) { c.Organization = new(vendors.Organization) }),
			[]string{"organization: missing name, phone, address, city, postal_code, country"}},
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
}

func organizationOf(idType, number string) *vendors.Organization {
	return &vendors.Organization{
		Name: "n", Phone: "p", Address: "a", City: "c", PostalCode: "1", Country: "de", RegistrationNumber: number, IDType: idType,
	}
}

// TestDocumentNeedsAnOrganization: the document is for the organization, so there must be one.
func TestDocumentNeedsAnOrganization(t *testing.T) {
	o := newFakeWith(t, Options{VerificationDocument: writeFile(t, "a.pdf", "x")}).orders
	cfg := goodConfig()
	if err := o.CheckConfig(cfg); err == nil || !strings.Contains(err.Error(), "verification_document: is for an organization") {
		t.Error(err)
	}
	cfg.Organization = organizationOf("", "")
	if err := o.CheckConfig(cfg); err != nil {
		t.Error(err)
	}
}

// TestOptionalFieldsOfPeopleAndOrganizations: numbers of documents and registers are sent for CFCA,
// and blank fields are not.
func TestOptionalFieldsOfPeopleAndOrganizations(t *testing.T) {
	full := vendors.Organization{
		Name: "n", Phone: "p", Address: "a", City: "c", State: " ", PostalCode: "1", Country: "de", RegistrationNumber: "HRB 1", IDType: "TYDMZ",
	}
	want := `{"idType":"TYDMZ","organizationAddress":"a","organizationCity":"c","organizationCountry":"DE",` +
		`"organizationMobile":"p","organizationName":"n","organizationPostCode":"1","organizationRegNumber":"HRB 1"}`
	if got, err := json.Marshal(organization(full)); err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	want = `{"country":"CN","firstName":"a","idNumber":"110101","idType":"SFZ"}`
	person := vendors.Contact{FirstName: "a", Country: "cn", IDType: "SFZ", IDNumber: "110101"}
	if got, err := json.Marshal(contact(person)); err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
