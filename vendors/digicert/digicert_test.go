package digicert

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	for input, want := range map[string]string{
		"digicert":                          `{}`,
		"digicert key":                      `{"api_key":"key"}`,
		"digicert {env.X}":                  `{"api_key":"{env.X}"}`,
		"digicert {\n api_key {file./x}\n}": `{"api_key":"{file./x}"}`,
		"digicert key {\n endpoint https://e/s\n organization_id 5000000001\n container_id 6\n payment_method profile\n dns_record cname\n rate_share 3\n timeout 90s\n account shop\n test_service\n}": `{"api_key":"key","rate_share":3,"organization_id":5000000001,"container_id":6,` +
			`"payment_method":"profile","dns_record":"cname","endpoint":"https://e/s","timeout":90000000000,"account":"shop","test_service":true}`,
	} {
		var v DigiCert
		if err := v.UnmarshalCaddyfile(caddyfile.NewTestDispenser(input)); err != nil {
			t.Errorf("%q: %v", input, err)
			continue
		}
		if got, err := json.Marshal(&v); err != nil || string(got) != want {
			t.Errorf("%q: got %s, %v", input, got, err)
		}
	}
	for input, want := range map[string]string{
		"digicert a b":                           "unexpected argument 'b'",
		"digicert a {\n api_key b\n}":            "option 'api_key' is given twice",
		"digicert {\n endpoint\n}":               "option 'endpoint' needs an argument",
		"digicert {\n organization_id example\n": "option 'organization_id' must be a number",
		"digicert {\n container_id 0\n}":         "option 'container_id' must be a number",
		"digicert {\n rate_share 0\n}":           "option 'rate_share' must be a number from 1 to 100",
		"digicert {\n timeout soon\n}":           "option 'timeout' must be a duration",
		"digicert {\n test_service yes\n}":       "unexpected argument 'yes'",
		"digicert {\n auto_renew\n}":             "unrecognized option 'auto_renew'",
	} {
		err := new(DigiCert).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: %v, want %s", input, err, want)
		}
	}
}

func provision(t *testing.T, config string) (*DigiCert, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("tls.vendors.digicert", []byte(config))
	if err != nil {
		return nil, err
	}
	return mod.(*DigiCert), nil
}

func TestProvision(t *testing.T) {
	t.Setenv("DIGICERT_TEST_KEY", "key")
	t.Setenv("DIGICERT_TEST_EMPTY", "")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ config, key, account, portal string }{
		{`{"api_key":"x"}`, "x", "www.digicert.com", "https://www.digicert.com"},
		{`{"api_key":"{env.DIGICERT_TEST_KEY}","endpoint":"https://certcentral.digicert.eu/services/v2/"}`, "key", "certcentral.digicert.eu", "https://certcentral.digicert.eu"},
		{fmt.Sprintf(`{"api_key":"{file.%s}","account":"shop"}`, file), "from-file", "www.digicert.com/shop", "https://www.digicert.com"},
		{`{"api_key":"x","endpoint":"http://127.0.0.1:9/services/v2","test_service":true}`, "x", "127.0.0.1:9", "http://127.0.0.1:9"},
	} {
		v, err := provision(t, tt.config)
		if err != nil {
			t.Errorf("%s: %v", tt.config, err)
			continue
		}
		want := vendors.Description{
			Name: "digicert", Account: tt.account, Portal: tt.portal,
			Methods:      []vendors.Method{vendors.MethodHTTP, vendors.MethodDNS},
			EndsWithTerm: true, TermsAreDays: true,
			RecordType: "TXT", RecordName: "_dnsauth", Cancelling: cancelling, Revoking: revoking, AbsenceAge: 10 * time.Minute, RenewWindow: 90 * 24 * time.Hour, Pace: vendors.Pace{Slow: 15 * time.Minute, Watch: time.Second},
		}
		if strings.Contains(tt.config, "test_service") {
			want.AbsenceAge, want.AnyName = 20*time.Second, true
		}
		if got := v.Describe(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.config, got, want)
		}
		if v.key != tt.key || v.options.PaymentMethod != payByBalance {
			t.Errorf("%s: key %q, payment %q", tt.config, v.key, v.options.PaymentMethod)
		}
	}
	for config, want := range map[string]string{
		`{}`: "api_key: missing",
		`{"api_key":"{env.DIGICERT_TEST_EMPTY}"}`:  "api_key: placeholder {env.DIGICERT_TEST_EMPTY} is empty",
		`{"api_key":"{DIGICERT_KEY}"}`:             "api_key: placeholder {DIGICERT_KEY} is unknown",
		`{"api_key":"x","endpoint":"http://e.eu"}`: "endpoint: e.eu would send the credential in the clear",
		`{"api_key":"x","test_service":true}`:      "test_service: www.digicert.com is not on this machine",
		`{"api_key":"x","timeout":-1}`:             "timeout: must not be negative",
		`{"api_key":"x","organization_id":-1}`:     "organization_id: must not be negative",
		`{"api_key":"x","container_id":-1}`:        "container_id: must not be negative",
		`{"api_key":"x","rate_share":-1}`:          "rate_share: must be 1 to 100, got -1",
		`{"api_key":"x","rate_share":101}`:         "rate_share: must be 1 to 100, got 101",
		`{"api_key":"x","payment_method":"card"}`:  `payment_method: must be balance or profile, got "card"`,
		`{"api_key":"aéb"}`:                        "api_key: has characters that API keys do not have",
		`{"api_key":"x","dns_record":"mx"}`:        `dns_record: must be txt or cname, got "mx"`,
	} {
		if _, err := provision(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

// TestLimits: all modules with one key wait for each other, and the share of a key's limits is
// rounded down.
func TestLimits(t *testing.T) {
	for share, want := range map[int][2]int{0: {100, 1000}, 1: {100, 1000}, 3: {33, 333}, maxShare: {1, 10}} {
		got := limits(share).Rates
		if got[0] != (kit.Limit{Requests: want[0], Per: 5 * time.Second}) || got[1] != (kit.Limit{Requests: want[1], Per: 3 * time.Minute}) {
			t.Errorf("share %d: %v", share, got)
		}
	}
	var inside atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer inside.Add(-1)
		if inside.Add(1) > 1 {
			t.Error("two requests at a time")
		}
		for range 1000 {
			runtime.Gosched() // lets another one run
		}
		io.WriteString(w, `{"id":1,"status":"rejected"}`)
	}))
	defer srv.Close()
	var calls sync.WaitGroup
	for _, label := range []string{"one", "two"} {
		v, err := provision(t, fmt.Sprintf(`{"api_key":"x","endpoint":%q,"account":%q}`, srv.URL, label))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for range 8 {
			calls.Go(func() {
				if _, err := v.Status(t.Context(), "1"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	calls.Wait()
}
