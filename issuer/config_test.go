package issuer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/test/tlsconfig"
	"github.com/caddy-commercial/caddy-commercial/issuer/proof"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/sandbox"
)

// configSecret is the token of every config of these tests. It must not be in any
// error.
const configSecret = "tok-3f9a17c0-never-print-me"

const wholeContact = `contact {
	first_name Ada
	last_name Lovelace
	email ada@example.com
	phone +44.2012345678
	organization Engines
	job_title Analyst
	address "1 Square"
	city London
	state London
	postal_code W1
	country GB
}
`

// goodVendor and goodBlock make an issuer that loads.
const (
	goodVendor = "vendor racent " + configSecret + "\n"
	goodBlock  = goodVendor + "product comodo-positivessl\n" + wholeContact
)

// configOf makes a complete config with one site and one issuer.
func configOf(t *testing.T, block string) *caddy.Config {
	t.Helper()
	text := "{\n\tadmin off\n\tstorage file_system " + t.TempDir() + "\n}\n" +
		"example.com {\n\ttls {\n\t\tissuer commercial {\n" + block + "\n\t\t}\n\t}\n}\n"
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		t.Fatalf("adapting: %v", err)
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(raw, cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// validate loads a config as "caddy validate" does, without starting it.
func validate(t *testing.T, block string) error {
	t.Helper()
	return caddy.Validate(configOf(t, block))
}

func TestGoodConfigLoads(t *testing.T) {
	if err := validate(t, goodBlock); err != nil {
		t.Fatal(err)
	}
}

func TestBadConfigsSayWhatIsWrong(t *testing.T) {
	token := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(token, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("COMMERCIAL_TEST_EMPTY", "")
	const product = "product comodo-positivessl\n"
	contactWithout := func(fields ...string) string {
		var lines []string
		for line := range strings.Lines(wholeContact) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			drop := false
			for _, field := range fields {
				drop = drop || name == field
			}
			if !drop {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	loopback := "vendor racent " + configSecret + " {\n\tendpoint http://127.0.0.1:1/ssl\n}\n"
	for _, c := range []struct {
		name, block string
		want        []string // all of them in the error
	}{
		{"no vendor", product + wholeContact, []string{"a vendor is required", "racent {env.RACENT_TOKEN}"}},
		{"no token", "vendor racent\n" + product + wholeContact, []string{"api_token: missing", "vendor racent {env.RACENT_TOKEN}"}},
		{"unset variable", "vendor racent {env.COMMERCIAL_TEST_UNSET}\n" + product + wholeContact, []string{"api_token", "{env.COMMERCIAL_TEST_UNSET}", "is empty or cannot be read"}},
		{"empty variable", "vendor racent {env.COMMERCIAL_TEST_EMPTY}\n" + product + wholeContact, []string{"api_token", "{env.COMMERCIAL_TEST_EMPTY}", "is empty or cannot be read"}},
		{"missing file", "vendor racent {file./nowhere/token}\n" + product + wholeContact, []string{"api_token", "{file./nowhere/token}", "is empty or cannot be read"}},
		{"empty file", "vendor racent {file." + token + "}\n" + product + wholeContact, []string{"api_token", "is empty"}},
		{"unknown placeholder", "vendor racent {vault.token}\n" + product + wholeContact, []string{"api_token", "is unknown"}},
		{"plain HTTP to the world", "vendor racent " + configSecret + " {\n\tendpoint http://portal.example.com/ssl\n}\n" + product + wholeContact, []string{"https", "portal.example.com"}},
		{"no product", goodVendor + wholeContact, []string{"product: missing", "comodo-positivessl"}},
		{"unset variable as product", goodVendor + "product {env.COMMERCIAL_TEST_UNSET}\n" + wholeContact, []string{"product", "{env.COMMERCIAL_TEST_UNSET}"}},
		{"no contact", goodVendor + product, []string{"contact: missing first_name, last_name, email, phone, organization, job_title, address, city, state, postal_code, country"}},
		{"two fields missing", goodVendor + product + contactWithout("email", "postal_code"), []string{"contact: missing email, postal_code"}},
		{"unset variable in the contact", goodVendor + product + strings.Replace(wholeContact, "Ada", "{env.COMMERCIAL_TEST_UNSET}", 1), []string{"contact first_name", "{env.COMMERCIAL_TEST_UNSET}"}},
		{"bad country", goodVendor + product + strings.Replace(wholeContact, "GB", "England", 1), []string{"contact: country must be a two-letter code such as DE"}},
		{"bad technical contact", goodBlock + "tech_contact {\n\tfirst_name Charles\n}\n", []string{"tech_contact: missing last_name"}},
		{"bad billing contact", goodBlock + "billing_contact {\n\tcountry 44\n}\n", []string{"billing_contact: missing first_name", "billing_contact: country must be"}},
		{"bad organization", goodBlock + "organization {\n\tname Engines\n\tcountry ENG\n}\n", []string{"organization: missing phone, address, city, postal_code", "organization: country must be"}},
		{"several mistakes at once", goodVendor + contactWithout("city") + "term 9y\n", []string{"product: missing", "term: must be 1y to 6y, got 9y", "contact: missing city"}},
		{"days that are no years", goodBlock + "term 90d\n", []string{"term: must be whole years, 1y to 6y"}},
		{"polling backwards", goodBlock + "poll 1m 5s\n", []string{"poll: the longest wait (5s) must not be shorter than the shortest (1m0s)"}},
		{"a name in two groups", goodBlock + "one_order a.example.com b.example.com\none_order B.example.com c.example.com\n", []string{"one_order: b.example.com is already in an option one_order"}},
		{"a margin as long as the term", goodBlock + "renew_margin 366d\n", []string{"renew_margin: 8784h0m0s is not shorter than the paid term, 1y"}},
		{"a margin longer than the term", goodBlock + "term 2y\nrenew_margin 800d\n", []string{"renew_margin:", "not shorter than the paid term, 2y"}},
		{"a storage that is later than orders can wait", goodBlock + "settle 31s\n", []string{"settle: must be at most 30s, because an order is sent within 1m0s of its entry or not at all, got 31s"}},
		{"looks all the time", goodBlock + "watch 59s\n", []string{"watch: 59s is too short, the shortest interval is 1m0s"}},
		{"a wildcard in a group by file", goodBlock + "one_order a.example.com *.example.com\n", []string{"one_order: *.example.com is a wildcard", "the whole order of a.example.com, *.example.com", "use dcv dns"}},
		{"a name grouped and adopted", goodBlock + "one_order a.example.com b.example.com\norder 77 b.example.com\n", []string{"order: b.example.com is already in an option one_order"}},
		{"sandbox for everybody", "vendor sandbox {\n\tlisten 0.0.0.0:0\n\tdata_dir " + t.TempDir() + "\n}\n" + product + wholeContact, []string{"listen: 0.0.0.0 is not a loopback address"}},
		{"plain HTTP on loopback is good, the rest is not", loopback + wholeContact, []string{"product: missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := validate(t, c.block)
			if err == nil {
				t.Fatal("the config was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), configSecret) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

// TestBadJSON covers what a Caddyfile cannot express.
func TestBadJSON(t *testing.T) {
	for name, c := range map[string]struct{ field, value, want string }{
		"dns":           {"dcv", `{"method":"dns"}`, "dcv dns: a DNS provider is required"},
		"unknown dcv":   {"dcv", `{"method":"pigeon"}`, `dcv: the method must be http, https or dns, got "pigeon"`},
		"probe":         {"probe", `"maybe"`, `probe: must be strict, warn or off, got "maybe"`},
		"term":          {"term", `"soon"`, `term: must be a number of years or days such as 1y or 365d, got "soon"`},
		"poll":          {"poll_min", `-5`, "poll: the longest wait"},
		"nanoseconds":   {"poll_min", `5`, "poll: 5ns is too short, the shortest wait is 1s"},
		"max_wait":      {"max_wait", `-5`, "max_wait: must not be negative, got -5ns"},
		"renew_margin":  {"renew_margin", `-5`, "renew_margin: must not be negative, got -5ns"},
		"settle":        {"settle", `-5`, "settle: must not be negative, got -5ns"},
		"spend_limit":   {"spend_limit", `{"orders":-1}`, "spend_limit: must not be negative, got -1 per 24h0m0s"},
		"http_port":     {"http_port", `70000`, "http_port: must be 1 to 65535, got 70000"},
		"bind":          {"bind", `["::1","127.0.0.1:8080"]`, `bind: "127.0.0.1:8080" is not an address or a host name`},
		"brackets":      {"bind", `["[::1]"]`, `bind: "[::1]" is not an address or a host name`},
		"small group":   {"one_order", `[["example.com"]]`, "one_order: a group needs at least two names"},
		"empty name":    {"one_order", `[["example.com",""]]`, `one_order: "" is not a name`},
		"order no ID":   {"orders", `[{"names":["example.com"]}]`, "order: an order ID and at least one name are required"},
		"order no name": {"orders", `[{"id":"77"}]`, "order: an order ID and at least one name are required"},
		"vendor":        {"vendor", `{"name":"verisign"}`, "unknown module: tls.vendors.verisign"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configOf(t, goodBlock)
			iss := issuerIn(t, cfg)
			iss[c.field] = json.RawMessage(c.value)
			raw, err := json.Marshal(map[string]any{"automation": map[string]any{
				"policies": []any{map[string]any{"subjects": []string{"example.com"}, "issuers": []any{iss}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			cfg.AppsRaw["tls"] = raw
			err = caddy.Validate(cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), configSecret) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

// issuerIn returns the JSON of the only issuer of a config.
func issuerIn(t *testing.T, cfg *caddy.Config) map[string]json.RawMessage {
	t.Helper()
	var app struct {
		Automation struct {
			Policies []struct {
				Issuers []map[string]json.RawMessage `json:"issuers"`
			} `json:"policies"`
		} `json:"automation"`
	}
	if err := json.Unmarshal(cfg.AppsRaw["tls"], &app); err != nil {
		t.Fatal(err)
	}
	return app.Automation.Policies[0].Issuers[0]
}

// provisioned loads the issuer by itself, until the test ends.
func provisioned(t *testing.T, block string) *Issuer {
	t.Helper()
	raw, err := json.Marshal(issuerIn(t, configOf(t, block)))
	if err != nil {
		t.Fatal(err)
	}
	config, err := tlsconfig.New(t.TempDir(), raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(config.Close)
	return config.Issuers[0].(*Issuer)
}

func TestDefaults(t *testing.T) {
	iss := provisioned(t, goodBlock)
	r := iss.rules
	if r.pace != defaultPace || r.maxWait != 10*time.Minute || r.renewMargin != 0 {
		t.Errorf("waits: %+v", r)
	}
	if r.spend.Orders != 20 || time.Duration(r.spend.Per) != 24*time.Hour || r.allowOnDemand || r.probe != proof.ModeDefault {
		t.Errorf("bounds: %+v", r)
	}
	o := iss.order
	if o.Term != (vendors.Term{Years: 1}) || o.Method != vendors.MethodHTTP || o.Tech != nil || o.Billing != nil || o.Organization != nil {
		t.Errorf("order: %+v", o)
	}
}

func TestPlaceholdersAreResolved(t *testing.T) {
	t.Setenv("COMMERCIAL_TEST_PRODUCT", "sectigo-ov")
	t.Setenv("COMMERCIAL_TEST_CITY", " Turin ")
	block := goodVendor + "product {env.COMMERCIAL_TEST_PRODUCT}\n" + strings.Replace(wholeContact, "city London", "city {env.COMMERCIAL_TEST_CITY}", 1)
	iss := provisioned(t, block)
	if iss.order.Product != "sectigo-ov" || iss.order.Contact.City != "Turin" {
		t.Errorf("product %q, city %q", iss.order.Product, iss.order.Contact.City)
	}
	if iss.Product != "{env.COMMERCIAL_TEST_PRODUCT}" {
		t.Errorf("the configuration itself was changed to %q", iss.Product)
	}
}

// TestPaceOfVendor: the vendor may set a slower pace of polling, and the configuration overrides it.
func TestPaceOfVendor(t *testing.T) {
	iss := provisioned(t, goodBlock)
	iss.about.Pace = vendors.Pace{Min: time.Minute, Slow: 3 * time.Hour}
	for _, c := range []struct {
		least, most time.Duration
		want        vendors.Pace
	}{
		{0, 0, vendors.Pace{Min: time.Minute, Max: 10 * time.Minute, Fresh: 2 * time.Hour, Slow: 3 * time.Hour}},
		{time.Second, 0, vendors.Pace{Min: time.Second, Max: 10 * time.Minute, Fresh: 2 * time.Hour, Slow: 3 * time.Hour}},
		{time.Second, 5 * time.Minute, vendors.Pace{Min: time.Second, Max: 5 * time.Minute, Fresh: 2 * time.Hour, Slow: 5 * time.Minute}},
		{4 * time.Hour, 0, vendors.Pace{Min: 4 * time.Hour, Max: 4 * time.Hour, Fresh: 2 * time.Hour, Slow: 4 * time.Hour}},
	} {
		iss.PollMin, iss.PollMax = caddy.Duration(c.least), caddy.Duration(c.most)
		if got := iss.pace(); got != c.want {
			t.Errorf("poll %s %s: %+v, want %+v", c.least, c.most, got, c.want)
		}
	}
}

func TestPollMaxFollowsPollMin(t *testing.T) {
	r := provisioned(t, goodBlock+"poll 1h\n").rules
	if r.pace.Min != time.Hour || r.pace.Max != time.Hour || r.pace.Slow != time.Hour {
		t.Errorf("%+v, want 1h", r.pace)
	}
}

func TestNamesAreNormalized(t *testing.T) {
	r := provisioned(t, goodBlock+"one_order EXAMPLE.com. bücher.example\norder 77 Shop.Example.org\n").rules
	if want := [][]string{{"example.com", "xn--bcher-kva.example"}}; !reflect.DeepEqual(r.groups, want) {
		t.Errorf("groups %v, want %v", r.groups, want)
	}
	if want := []AdoptedOrder{{"77", []string{"shop.example.org"}}}; !reflect.DeepEqual(r.adopted, want) {
		t.Errorf("adopted %v, want %v", r.adopted, want)
	}
}

// TestProvisionTwice: an issuer that policies share is provisioned more than once, with the same result.
func TestProvisionTwice(t *testing.T) {
	iss := provisioned(t, goodBlock+"one_order a.example.com b.example.com\norder 77 c.example.com\n")
	before := iss.rules
	if err := iss.Provision(iss.ctx); err != nil {
		t.Fatal(err)
	}
	if err := iss.Validate(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(iss.rules, before) {
		t.Errorf("rules %+v, before %+v", iss.rules, before)
	}
}

func TestIssuerKeyTellsAccountsApart(t *testing.T) {
	key := func(vendor string) string {
		return provisioned(t, vendor+"product comodo-positivessl\n"+wholeContact).IssuerKey()
	}
	plain := key(goodVendor)
	rotated := key("vendor racent another-token\n")
	other := key("vendor racent " + configSecret + " {\n\taccount second\n}\n")
	nicsrs := key("vendor racent " + configSecret + " {\n\tendpoint https://portal.nicsrs.com/ssl\n}\n")
	if plain != rotated {
		t.Errorf("a new token changed the key from %q to %q", plain, rotated)
	}
	if plain == other || plain == nicsrs || other == nicsrs {
		t.Errorf("accounts share a key: %q, %q, %q", plain, other, nicsrs)
	}
	if strings.Contains(plain+other+nicsrs, configSecret) {
		t.Errorf("the token is in a key")
	}
}

func TestIllegalNamesAreRefused(t *testing.T) {
	iss := &Issuer{
		about: vendors.Description{Name: "racent", NeedsCommonName: true},
		order: vendors.OrderConfig{Method: vendors.MethodHTTP},
	}
	long := strings.Repeat("a", 53) + ".example.com" // 65 bytes
	for name, c := range map[string]struct {
		csr  *x509.CertificateRequest
		want string
	}{
		"wildcard":     {&x509.CertificateRequest{DNSNames: []string{"*.example.com"}}, "*.example.com is a wildcard, which CAs do not validate by a file (dcv http)"},
		"IPv4":         {&x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, "192.0.2.1 is an IP address; racent is asked for certificates of host names only"},
		"IPv6":         {&x509.CertificateRequest{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, "2001:db8::1 is an IP address"},
		"65 bytes":     {&x509.CertificateRequest{DNSNames: []string{long}}, "has 65 bytes, but racent needs it as common name, which holds at most 64"},
		"localhost":    {&x509.CertificateRequest{DNSNames: []string{"demo.localhost"}}, "demo.localhost is not a public name, so no commercial CA certifies it"},
		"internal":     {&x509.CertificateRequest{DNSNames: []string{"printer"}}, "printer is not a public name"},
		"second name":  {&x509.CertificateRequest{DNSNames: []string{"example.com", "*.example.com"}}, "*.example.com is a wildcard"},
		"mail address": {&x509.CertificateRequest{DNSNames: []string{"example.com"}, EmailAddresses: []string{"a@example.com"}}, "the CSR is not for a host name"},
		"URI":          {&x509.CertificateRequest{DNSNames: []string{"example.com"}, URIs: []*url.URL{{Scheme: "spiffe"}}}, "the CSR is not for a host name"},
		"nothing":      {&x509.CertificateRequest{}, "the CSR is not for a host name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := iss.Issue(context.Background(), c.csr)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want %q", err, c.want)
			}
			if _, final := errors.AsType[certmagic.ErrNoRetry](err); !final {
				t.Errorf("certmagic would try again: %v", err)
			}
		})
	}
	t.Run("legal", func(t *testing.T) {
		for _, name := range []string{"example.com", long[1:]} {
			if err := iss.checkSubjects(&x509.CertificateRequest{DNSNames: []string{name}}); err != nil {
				t.Error(err)
			}
		}
		test := &Issuer{about: vendors.Description{AnyName: true}, order: iss.order}
		if err := test.checkSubjects(&x509.CertificateRequest{DNSNames: []string{"demo.localhost"}}); err != nil {
			t.Error(err)
		}
	})
}

// TestPeersMustAgreeOnTheLimit: one account has one spending limit.
func TestPeersMustAgreeOnTheLimit(t *testing.T) {
	load := func(first, second string) error {
		a, b := issuerIn(t, configOf(t, goodBlock+first)), issuerIn(t, configOf(t, goodBlock+second))
		var raw []json.RawMessage
		for _, object := range []map[string]json.RawMessage{a, b} {
			data, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, data)
		}
		config, err := tlsconfig.New(t.TempDir(), raw...)
		if err == nil {
			config.Close()
		}
		return err
	}
	if err := load("spend_limit 5 per 24h\n", "spend_limit 5 per 24h\n"); err != nil {
		t.Errorf("the same limit twice: %v", err)
	}
	err := load("spend_limit 5 per 24h\n", "spend_limit 50 per 24h\n")
	if err == nil || !strings.Contains(err.Error(), "spend_limit: it holds for a whole account") || !strings.Contains(err.Error(), "50 per 24h") {
		t.Errorf("different limits: %v", err)
	}
}
