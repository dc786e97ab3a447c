package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

// digicertReply is an answer of DigiCert's dialect.
type digicertReply struct {
	status int
	raw    string
	code   string
	fields map[string]any
}

func (r digicertReply) text(field string) string { return fmt.Sprint(r.fields[field]) }

// ask makes a call with the right key.
func (b *bench) ask(method, path, body string) digicertReply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://sandbox/services/v2/"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("X-DC-DEVKEY", testToken)
	return b.askAs(req)
}

func (b *bench) askAs(req *http.Request) digicertReply {
	b.t.Helper()
	resp, err := b.Transport().RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	r := digicertReply{status: resp.StatusCode, raw: string(raw)}
	var errs struct {
		Errors []struct{ Code string } `json:"errors"`
	}
	if json.Unmarshal(raw, &errs) == nil && len(errs.Errors) > 0 {
		r.code = errs.Errors[0].Code
	}
	dec := json.NewDecoder(strings.NewReader(r.raw))
	dec.UseNumber()
	_ = dec.Decode(&r.fields) // certificates are not JSON
	return r
}

func (b *bench) expectStatus(r digicertReply, status int, code string) digicertReply {
	b.t.Helper()
	if r.status != status || r.code != code {
		b.t.Fatalf("HTTP %d %q, want %d %q: %s", r.status, r.code, status, code, r.raw)
	}
	return r
}

// digicertOrderBody is a valid order, which change may modify.
func digicertOrderBody(t *testing.T, change func(order, cert map[string]any), names ...string) string {
	t.Helper()
	cert := map[string]any{
		"common_name": names[0], "dns_names": names[1:], "csr": csrtest.PEM(t, nil, "", names...),
		"signature_hash": "sha256", "server_platform": map[string]any{"id": -1},
	}
	order := map[string]any{
		"certificate": cert, "order_validity": map[string]any{"years": 1}, "dcv_method": "http-token",
		"skip_approval": true, "payment_method": "balance", "alternative_order_id": "ref-1",
	}
	if change != nil {
		change(order, cert)
	}
	return asJSON(t, order)
}

func TestDigiCertAccess(t *testing.T) {
	b := newBench(t, nil)
	for _, key := range []string{"", "wrong"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sandbox/services/v2/product", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-DC-DEVKEY", key)
		r := b.expectStatus(b.askAs(req), 403, "access_denied|access_denied_invalid_key")
		if want := `{"errors":[{"code":"access_denied|access_denied_invalid_key","message":"Access denied due to access_denied_invalid_key."}]}`; r.raw != want {
			t.Errorf("got %s", r.raw)
		}
	}
	for _, call := range [][2]string{{"GET", "nowhere"}, {"DELETE", "order/certificate/1"}, {"GET", "order/certificate/"}, {"GET", "order/certificate/1/validation/x"}} {
		b.expectStatus(b.ask(call[0], call[1], ""), 404, "not_found|route")
	}
	for _, call := range [][2]string{{"GET", "order/certificate/1"}, {"PUT", "order/certificate/1/check-dcv"}, {"PUT", "order/certificate/1/dcv-random-value"},
		{"GET", "order/certificate/1/validation"}, {"GET", "order/alternate/none"}} {
		b.expectStatus(b.ask(call[0], call[1], ""), 404, "not_found|order")
	}
	racent := b.placed("comodo-positivessl", "r1", "example.org")
	b.expectStatus(b.ask("GET", "order/certificate/"+racent, ""), 404, "not_found|order")
}

func TestDigiCertRefusals(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Accounts[0].Organizations = []int64{7} })
	for name, tt := range map[string]struct {
		product string
		change  func(order, cert map[string]any)
		status  int
		code    string
	}{
		"unknown product":     {"ssl_dv_none", nil, 404, "not_found|product"},
		"another's product":   {"comodo-positivessl", nil, 404, "not_found|product"},
		"unknown field":       {"", func(o, _ map[string]any) { o["auto_renew"] = 1 }, 400, "bad_request_format"},
		"no term":             {"", func(o, _ map[string]any) { delete(o, "order_validity") }, 400, "invalid_value:order_validity"},
		"both terms":          {"", func(o, _ map[string]any) { o["order_validity"] = map[string]any{"years": 1, "days": 2} }, 400, "invalid_value:order_validity"},
		"long term":           {"", func(o, _ map[string]any) { o["order_validity"] = map[string]any{"years": 4} }, 400, "invalid_value:validity_years"},
		"many days":           {"", func(o, _ map[string]any) { o["order_validity"] = map[string]any{"days": 2000} }, 400, "invalid_value:validity_days"},
		"method":              {"", func(o, _ map[string]any) { o["dcv_method"] = "http" }, 400, "invalid_value:dcv_method"},
		"payment":             {"", func(o, _ map[string]any) { o["payment_method"] = "cash" }, 400, "invalid_value:payment_method"},
		"reference":           {"", func(o, _ map[string]any) { o["alternative_order_id"] = "a b" }, 400, "invalid_value:alternative_order_id"},
		"wildcard by file":    {"ssl_dv_geotrust_flex", func(_, c map[string]any) { c["common_name"] = "*.example.com" }, 400, "invalid_wildcard_dcv_method"},
		"wildcard":            {"", func(o, c map[string]any) { o["dcv_method"], c["common_name"] = "dns-txt-token", "*.example.com" }, 400, "invalid_value:dns_names"},
		"no name":             {"", func(_, c map[string]any) { c["common_name"] = "" }, 400, "invalid_value:dns_names"},
		"hash":                {"", func(_, c map[string]any) { c["signature_hash"] = "md5" }, 400, "invalid_value:signature_hash"},
		"csr":                 {"", func(_, c map[string]any) { c["csr"] = "x" }, 400, "csr_invalid_cannot_parse"},
		"organization for DV": {"", func(o, _ map[string]any) { o["organization"] = map[string]any{"id": 7} }, 400, "invalid_value:organization"},
		"no organization":     {"ssl_basic", nil, 400, "invalid_value:organization"},
		"wrong organization":  {"ssl_basic", func(o, _ map[string]any) { o["organization"] = map[string]any{"id": 8} }, 404, "not_found|organization"},
		"renewal of nothing":  {"", func(o, _ map[string]any) { o["renewal_of_order_id"] = 5 }, 404, "not_found|order"},
	} {
		if tt.product == "" {
			tt.product = "ssl_dv_rapidssl"
		}
		r := b.ask("POST", "order/certificate/"+tt.product, digicertOrderBody(t, tt.change, "example.com"))
		if r.status != tt.status || r.code != tt.code {
			t.Errorf("%s: HTTP %d %s", name, r.status, r.raw)
		}
	}
	b.expectStatus(b.ask("POST", "order/certificate/ssl_dv_rapidssl", `{"certificate":`), 400, "bad_request_format")
	if err := b.SetBalance(testToken, 100); err != nil {
		t.Fatal(err)
	}
	b.expectStatus(b.ask("POST", "order/certificate/ssl_dv_rapidssl", digicertOrderBody(t, nil, "example.com")), 400, "insufficient_funds")
	if n := len(b.Charges()); n != 0 {
		t.Errorf("charged %d times", n)
	}
}

// ordered places an order and returns its ID.
func (b *bench) ordered(names ...string) string {
	b.t.Helper()
	r := b.expectStatus(b.ask("POST", "order/certificate/ssl_dv_rapidssl", digicertOrderBody(b.t, nil, names...)), 201, "")
	return r.text("id")
}

// proven publishes the proof of the newest order and asks DigiCert to check it.
func (b *bench) proven(id string, hosts ...string) digicertReply {
	b.t.Helper()
	all := b.Orders()
	b.site.unpublish()
	b.site.publish(all[len(all)-1], hosts...)
	b.clock.add(time.Second)
	return b.ask("PUT", "order/certificate/"+id+"/check-dcv", "")
}

func TestDigiCertFileIsFetchedForEachName(t *testing.T) {
	b := newBench(t, nil)
	id := b.ordered("example.com", "www.example.com")
	if len(id) < 10 || id < "4294967296" {
		t.Errorf("ID %s fits into 32 bits", id)
	}
	b.expectStatus(b.proven(id), 400, "file_random_value_not_found")
	b.expectStatus(b.proven(id, "example.com"), 400, "file_random_value_not_found")
	if r := b.expectStatus(b.proven(id, "example.com", "www.example.com"), 200, ""); r.text("order_status") != "issued" || r.text("dcv_status") != "valid" {
		t.Errorf("%s", r.raw)
	}
	b.expectStatus(b.ask("PUT", "order/certificate/"+id+"/check-dcv", ""), 400, "invalid_order_status")
	for _, f := range b.Fetches() {
		if !strings.HasSuffix(f.URL, "/.well-known/pki-validation/fileauth.txt") {
			t.Errorf("fetched %s", f.URL)
		}
	}
	info := b.expectStatus(b.ask("GET", "order/certificate/"+id, ""), 200, "")
	cert := info.fields["certificate"].(map[string]any)
	if info.text("status") != "issued" || fmt.Sprint(info.fields["organization"]) != "[]" || cert["valid_till"] != "2027-02-16" || info.text("order_valid_till") != "2027-08-01" {
		t.Errorf("%s", info.raw)
	}
	path := "certificate/" + fmt.Sprint(cert["id"]) + "/download/format/"
	if all := b.ask("GET", path+"pem_all", ""); strings.Count(all.raw, "BEGIN CERTIFICATE") != 3 {
		t.Errorf("pem_all: %s", all.raw)
	}
	if noRoot := b.ask("GET", path+"pem_noroot", ""); strings.Count(noRoot.raw, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("pem_noroot: %s", noRoot.raw)
	}
	b.expectStatus(b.ask("GET", path+"der", ""), 400, "invalid_value:format")
}

func TestDigiCertRandomValueExpires(t *testing.T) {
	b := newBench(t, nil)
	id := b.ordered("example.com")
	value := func() string {
		return b.expectStatus(b.ask("PUT", "order/certificate/"+id+"/dcv-random-value", ""), 200, "").text("dcv_random_value")
	}
	first := value()
	if second := value(); second != first || len(first) != 32 {
		t.Errorf("%q, then %q", first, second)
	}
	b.clock.add(30 * 24 * time.Hour)
	b.expectStatus(b.proven(id, "example.com"), 400, "file_random_value_not_found")
	if len(b.Fetches()) != 0 {
		t.Error("looked for an expired value")
	}
	if second := value(); second == first {
		t.Error("the expired value is returned again")
	}
	b.expectStatus(b.proven(id, "example.com"), 200, "")
}

// TestDigiCertDroppedNameRevokes: a reissue that drops a name revokes the certificates
// before it, after three days.
func TestDigiCertDroppedNameRevokes(t *testing.T) {
	for _, names := range [][]string{{"example.com", "www.example.com"}, {"example.com"}} {
		b := newBench(t, nil)
		id := b.ordered("example.com", "www.example.com")
		b.expectStatus(b.proven(id, "example.com", "www.example.com"), 200, "")
		noMoney := func(order, _ map[string]any) {
			for _, field := range []string{"order_validity", "payment_method", "alternative_order_id"} {
				delete(order, field)
			}
		}
		reissue := func(names ...string) digicertReply {
			return b.ask("POST", "order/certificate/"+id+"/reissue", digicertOrderBody(t, noMoney, names...))
		}
		b.expectStatus(b.ask("POST", "order/certificate/"+id+"/reissue", digicertOrderBody(t, nil, names...)), 400, "invalid_value:order_validity")
		b.expectStatus(reissue("example.com", "other.example.com"), 400, "invalid_value:dns_names")
		if r := b.expectStatus(reissue(names...), 201, ""); r.text("id") != id {
			t.Errorf("reissue: %s", r.raw)
		}
		if r := b.ask("GET", "order/certificate/"+id, ""); r.text("status") != "reissue_pending" {
			t.Errorf("%s", r.raw)
		}
		b.expectStatus(reissue(names...), 400, "invalid_order_status")
		b.expectStatus(b.ask("PUT", "order/certificate/"+id+"/revoke", `{"skip_approval":true}`), 400, "invalid_order_status")
		b.expectStatus(b.proven(id, names...), 200, "")

		revoked := func() bool {
			b.expectStatus(b.ask("GET", "order/certificate/"+id, ""), 200, "")
			return b.Orders()[0].Revoked
		}
		if revoked() {
			t.Errorf("%v: revoked at once", names)
		}
		b.clock.add(72 * time.Hour)
		if got := revoked(); got != (len(names) == 1) {
			t.Errorf("%v: revoked %v", names, got)
		}
		if n := len(b.Charges()); n != 1 {
			t.Errorf("charged %d times", n)
		}
	}
}

func TestDigiCertLists(t *testing.T) {
	b := newBench(t, nil)
	var ids []string
	for range 3 {
		ids = append(ids, b.ordered("example.com", "www.example.com"))
		b.clock.add(time.Minute)
	}
	b.ordered("example.org")
	r := b.expectStatus(b.ask("GET", "order/certificate?filters%5Bdomain_name%5D=www.example.com&sort=-date_created&limit=2", ""), 200, "")
	rows := r.fields["orders"].([]any)
	if len(rows) != 2 || fmt.Sprint(rows[0].(map[string]any)["id"]) != ids[2] || fmt.Sprint(r.fields["page"].(map[string]any)["total"]) != "3" {
		t.Errorf("%s", r.raw)
	}
	b.expectStatus(b.ask("GET", "order/certificate?filters%5Bcolour%5D=blue", ""), 400, "invalid_value:filters[colour]")
	b.expectStatus(b.ask("GET", "order/certificate?limit=1001", ""), 400, "invalid_value:limit")
	if r := b.ask("GET", "order/alternate/ref-1", ""); len(r.fields["orders"].([]any)) != 4 {
		t.Errorf("%s", r.raw)
	}
	if n := len(b.Charges()); n != 4 {
		t.Errorf("charged %d times: the reference does not deduplicate", n)
	}
}

func TestDigiCertSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, func(cfg *Config) { cfg.Dir = dir })
	id := b.ordered("example.com")
	value := b.Orders()[0].FileContent
	b.Close()
	again := newBench(t, func(cfg *Config) { cfg.Dir = dir })
	if r := again.ask("PUT", "order/certificate/"+id+"/dcv-random-value", ""); r.text("dcv_random_value") != value {
		t.Errorf("%s, want %s", r.raw, value)
	}
	again.expectStatus(again.proven(id, "example.com"), 200, "")
}

func TestDigiCertFaultsHaveItsNames(t *testing.T) {
	b := newBench(t, nil)
	id := b.ordered("example.com")
	b.Inject(Fault{Endpoint: "info", Kind: APICode, Status: 429, Errors: "request_limit_exceeded"})
	b.expectStatus(b.ask("GET", "order/certificate/"+id, ""), 429, "request_limit_exceeded")
	b.expectStatus(b.ask("GET", "order/certificate/"+id+"/validation", ""), 200, "")
	if b.Calls("order") != 1 || b.Calls("info") != 1 || b.Calls("validation") != 1 {
		t.Errorf("calls: %d, %d, %d", b.Calls("order"), b.Calls("info"), b.Calls("validation"))
	}
}

func TestDigiCertStatusChanges(t *testing.T) {
	b := newBench(t, nil)
	changes := func(minutes string) digicertReply {
		t.Helper()
		return b.ask("GET", "order/certificate/status-changes?minutes="+minutes, "")
	}
	for _, minutes := range []string{"", "0", "10081", "x"} {
		b.expectStatus(changes(minutes), 400, "time_frame_too_long")
	}
	if r := b.expectStatus(changes("60"), 200, ""); r.raw != "{}" {
		t.Errorf("answer %s", r.raw)
	}
	id := b.ordered("example.com")
	if r := changes("60"); !strings.Contains(r.raw, `"order_id":`+id) || !strings.Contains(r.raw, `"status":"pending"`) {
		t.Errorf("answer %s", r.raw)
	}
	b.clock.add(2 * time.Hour)
	if r := changes("60"); r.raw != "{}" {
		t.Errorf("answer %s", r.raw)
	}
	b.expectStatus(b.proven(id, "example.com"), 200, "")
	if r := changes("60"); !strings.Contains(r.raw, `"status":"issued"`) {
		t.Errorf("answer %s", r.raw)
	}
}
