package hostile

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// TestLifeOverHTTP takes an order through its life over real sockets, in the
// documented encoding, with a real web server that serves the file.
func TestLifeOverHTTP(t *testing.T) {
	web := newSite()
	port := web.start(t)
	b := newBench(t, func(cfg *Config) { cfg.Transport, cfg.HTTPPort, cfg.Now = nil, port, time.Now })
	srv := httptest.NewServer(b.CA)
	defer srv.Close()
	call := func(endpoint string, form map[string]string) reply {
		t.Helper()
		form["api_token"] = testToken
		contentType, body := multipartBody(t, form)
		resp, err := srv.Client().Post(srv.URL+"/ssl/"+endpoint, contentType, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return b.want(decode(t, resp), 1)
	}

	form := orderForm(t, "comodo-positivessl", "life-1", "example.com")
	call("validate", form)
	r := call("place", form)
	id := r.field("certId")
	if want := "http://example.com/.well-known/pki-validation/" + r.field("DCVfileName"); r.field("DCVfilePath") != want {
		t.Errorf("path %q, want %q", r.field("DCVfilePath"), want)
	}
	collect := func() reply { return call("collect", map[string]string{"certId": id}) }
	if r := collect(); r.Status != StatusPending || !strings.Contains(r.raw, `"is_verify":""`) ||
		!strings.Contains(r.raw, `"dcv":{"status":"processing"}`) || r.field("certificate") != "" {
		t.Errorf("pending: %s", r.raw)
	}

	// Only the apex serves the file, so the www twin is dropped.
	web.publish(b.info(id), "example.com")
	call("updateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH", "domainName": "example.com"})
	r = collect()
	if r.Status != StatusComplete || !strings.Contains(r.raw, `"is_verify":"verified"`) || !strings.Contains(r.raw, `"issued":{"status":"done"}`) {
		t.Fatalf("complete: %s; fetches %+v", r.raw, b.Fetches())
	}
	leaf := parseCert(t, r.field("certificate"))
	if got := strings.Join(leaf.DNSNames, " "); got != "example.com" || leaf.Subject.CommonName != "example.com" {
		t.Errorf("names %s, common name %s", got, leaf.Subject.CommonName)
	}
	inter := x509.NewCertPool()
	inter.AppendCertsFromPEM([]byte(r.field("caCertificate")))
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "example.com", Roots: b.Roots(), Intermediates: inter}); err != nil {
		t.Errorf("verifying: %v", err)
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || leaf.IsCA {
		t.Errorf("extended key usage %v, CA %v", leaf.ExtKeyUsage, leaf.IsCA)
	}
	if !strings.Contains(leaf.Issuer.CommonName, "SANDBOX") {
		t.Errorf("issuer %s", leaf.Issuer)
	}
	if until := time.Until(leaf.NotAfter); until > 199*24*time.Hour || until < 199*24*time.Hour-time.Minute {
		t.Errorf("valid for another %s", until)
	}
	if got, want := r.field("endDate"), leaf.NotAfter.In(reseller.ChinaTime).Format(time.DateTime); got != want {
		t.Errorf("endDate %q, want %q", got, want)
	}
	if len(web.agents) != 3 {
		t.Errorf("user agents %v, want three", web.agents)
	}

	call("revoke", map[string]string{"certId": id, "reason": "done"})
	if !b.Revoked(leaf.SerialNumber) {
		t.Error("not revoked")
	}
	if n := len(b.Charges()); n != 1 {
		t.Errorf("%d charges", n)
	}
	if got := b.Calls("place"); got != 1 {
		t.Errorf("%d calls of place", got)
	}
	if got := b.Calls(""); got != 6 {
		t.Errorf("%d calls", got)
	}

	for path, want := range map[string]string{"/": "SANDBOX", "/root.pem": "BEGIN CERTIFICATE", "/charges": `"reference":"life-1"`} {
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
}

// TestTLSFile proves a name over HTTPS, with a certificate nobody trusts.
func TestTLSFile(t *testing.T) {
	web := newSite()
	srv := httptest.NewTLSServer(web)
	defer srv.Close()
	b := newBench(t, func(cfg *Config) {
		cfg.Transport = nil
		cfg.HTTPSPort = srv.Listener.Addr().(*net.TCPAddr).Port
	})
	params := orderParamsFor(t, "a.example.com")
	params["domainInfo"] = domains("HTTPS_CSR_HASH", "a.example.com")
	r := b.want(b.call("place", map[string]string{"productCode": "comodo-positivessl", "years": "1", "params": asJSON(t, params)}), 1)
	if !strings.HasPrefix(r.field("DCVfilePath"), "https://a.example.com/") {
		t.Errorf("path %q", r.field("DCVfilePath"))
	}
	id := r.field("certId")
	web.publish(b.info(id), "a.example.com")
	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusComplete {
		t.Errorf("status %s, fetches %+v", r.Status, b.Fetches())
	}
}

// TestInBubble runs the CA on the fake clock of a synctest bubble: delays, organization
// checks and background checks.
func TestInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) {
			cfg.Now = time.Now
			cfg.SubmitDelay, cfg.IssueDelay, cfg.OVDelay = time.Minute, 5*time.Minute, time.Hour
			cfg.CheckInterval = 10 * time.Minute
		})
		params := orderParamsFor(t, "a.example.com")
		params["finance"], params["tech"], params["organizationInfo"] = contact(), contact(), organisation()
		form := map[string]string{"productCode": "sectigo-ov", "years": "1", "params": asJSON(t, params)}
		r := b.want(b.call("place", form), 1)
		id := r.field("certId")
		if r.field("DCVfileName") != "" {
			t.Errorf("validation values before the submission: %s", r.raw)
		}
		expect := func(parts ...string) {
			t.Helper()
			r := b.want(b.call("collect", map[string]string{"certId": id}), 1)
			for _, part := range parts {
				if !strings.Contains(r.raw, part) {
					t.Errorf("%s not in %s", part, r.raw)
				}
			}
		}
		expect(`"application":{"status":"processing"}`, `"dcv":{"status":"notdone"}`, `"status":"PENDING"`)
		if strings.Contains(b.call("collect", map[string]string{"certId": id}).raw, "dcvList") {
			t.Error("dcvList before the submission")
		}
		b.want(b.call("updateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH", "domainName": "a.example.com"}), -6)

		b.site.publish(b.info(id), "a.example.com", "www.a.example.com")
		<-time.After(11 * time.Minute) // past one background check
		if n := len(b.Fetches()); n != 6 {
			t.Errorf("%d fetches in the background, want two names from three perspectives", n)
		}
		expect(`"application":{"status":"done"}`, `"dcv":{"status":"done"}`, `"ov":{"status":"processing"}`, `"is_verify":"verified"`)
		<-time.After(50 * time.Minute) // the organization is checked
		expect(`"ov":{"status":"done"}`, `"issued":{"status":"processing"}`, `"status":"PENDING"`)
		<-time.After(6 * time.Minute)
		expect(`"issued":{"status":"done"}`, `"status":"COMPLETE"`)
		if n := len(b.Fetches()); n != 6 {
			t.Errorf("%d fetches, want no more than before", n)
		}
	})
}

// TestCollectDoesNotStorm polls far more often than the CA checks.
func TestCollectDoesNotStorm(t *testing.T) {
	b := newBench(t, func(cfg *Config) { cfg.Quirks.NoTwin = true })
	id := b.placed("comodo-positivessl", "", "a.example.com")
	for range 20 {
		b.want(b.call("collect", map[string]string{"certId": id}), 1)
	}
	if n := len(b.Fetches()); n != 3 {
		t.Errorf("%d fetches, want the three of place", n)
	}
	b.want(b.call("updateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH"}), 1)
	if n := len(b.Fetches()); n != 6 {
		t.Errorf("%d fetches, want updateDCV to check at once", n)
	}
	b.clock.add(250 * time.Millisecond)
	b.want(b.call("collect", map[string]string{"certId": id}), 1)
	if n := len(b.Fetches()); n != 9 {
		t.Errorf("%d fetches", n)
	}
}

// TestFileRules shows what a perspective accepts as the file and what it does not.
func TestFileRules(t *testing.T) {
	answer := func(status int, header, body string) func(want string) http.Handler {
		return func(want string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if header != "" {
					w.Header().Set("Location", header)
				}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, strings.ReplaceAll(body, "FILE", want))
			})
		}
	}
	tests := map[string]struct {
		handler func(string) http.Handler
		strict  string // result, "" for accepted
		lenient string
	}{
		"exact":       {answer(200, "", "FILE"), "", ""},
		"newline":     {answer(200, "", "FILE\n"), "wrong content", ""},
		"redirect":    {answer(308, "https://a.example.com/x", "FILE"), "redirect to", "redirect to"},
		"not found":   {answer(404, "", "FILE"), "status 404", "status 404"},
		"partial":     {answer(206, "", "FILE"), "status 206", "status 206"},
		"other words": {answer(200, "", "hello"), "wrong content", "wrong content"},
		"too large":   {answer(200, "", "FILE"+strings.Repeat(" ", 64<<10)), "larger", "larger"},
	}
	for name, tt := range tests {
		for _, lenient := range []bool{false, true} {
			b := newBench(t, func(cfg *Config) { cfg.Lenient, cfg.Quirks.NoTwin = lenient, true })
			id := b.placed("comodo-positivessl", "", "a.example.com")
			b.site.handler = tt.handler(b.info(id).FileContent)
			b.want(b.call("updateDCV", map[string]string{"certId": id, "dcvMethod": "HTTP_CSR_HASH"}), 1)
			want := tt.strict
			if lenient {
				want = tt.lenient
			}
			fetches := b.Fetches()
			got := fetches[len(fetches)-1].Result
			status := b.info(id).Status
			if want == "" && (got != ResultOK || status != StatusComplete) || want != "" && (!strings.Contains(got, want) || status != StatusPending) {
				t.Errorf("%s, lenient %v: result %q, status %s", name, lenient, got, status)
			}
		}
	}
}

func TestQuorum(t *testing.T) {
	for quorum, want := range map[int]string{0: StatusPending, 3: StatusPending, 2: StatusComplete} {
		b := newBench(t, func(cfg *Config) { cfg.Quorum, cfg.Quirks.NoTwin = quorum, true })
		id := b.placed("comodo-positivessl", "", "a.example.com")
		content := b.info(id).FileContent
		b.site.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.UserAgent(), "perspective-2") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, content)
		})
		b.clock.add(time.Second)
		b.want(b.call("collect", map[string]string{"certId": id}), 1)
		if got := b.info(id).Status; got != want {
			t.Errorf("quorum %d: %s, want %s", quorum, got, want)
		}
	}
}

func TestDialsLoopbackOnly(t *testing.T) {
	for _, ip := range []string{"192.0.2.1", "0.0.0.0", "example.org", "::ffff:192.0.2.1"} {
		b := newBench(t, func(cfg *Config) {
			cfg.Transport = nil
			cfg.Resolve = func(string) (string, error) { return ip, nil }
		})
		b.placed("comodo-positivessl", "", "a.example.com")
		for _, f := range b.Fetches() {
			if !strings.Contains(f.Result, "loopback") && !strings.Contains(f.Result, "resolving") {
				t.Errorf("%s: %q", ip, f.Result)
			}
		}
	}
}

func TestDNSProof(t *testing.T) {
	var records atomic.Pointer[map[string]string]
	records.Store(&map[string]string{})
	b := newBench(t, func(cfg *Config) {
		cfg.LookupCNAME = func(_ context.Context, host string) (string, error) {
			if target, ok := (*records.Load())[host]; ok {
				return target, nil
			}
			return "", errors.New("no such host")
		}
	})
	form := orderForm(t, "comodo-positivessl-wildcard", "", "*.shop.example.com")
	form["params"] = strings.ReplaceAll(form["params"], "HTTP_CSR_HASH", "CNAME_CSR_HASH")
	r := b.want(b.call("place", form), 1)
	id, label, target := r.field("certId"), r.field("DCVdnsHost"), r.field("DCVdnsValue")

	records.Store(&map[string]string{label + ".shop.example.com": "wrong.example.com", label + ".example.com": target})
	b.clock.add(time.Second)
	if r := b.want(b.call("collect", map[string]string{"certId": id}), 1); r.Status != StatusPending {
		t.Error("the first record found did not decide")
	}
	records.Store(&map[string]string{label + ".example.com": strings.ToUpper(target) + "."})
	b.clock.add(time.Second)
	r = b.want(b.call("collect", map[string]string{"certId": id}), 1)
	if r.Status != StatusComplete {
		t.Fatalf("status %s, fetches %+v", r.Status, b.Fetches())
	}
	if got := strings.Join(parseCert(t, r.field("certificate")).DNSNames, " "); got != "*.shop.example.com shop.example.com" {
		t.Errorf("names %s", got)
	}
}

func TestMailProof(t *testing.T) {
	b := newBench(t, nil)
	params := orderParamsFor(t, "a.example.com")
	params["domainInfo"] = []any{map[string]any{"domainName": "a.example.com", "dcvMethod": "EMAIL", "dcvEmail": "admin@a.example.com"}}
	id := b.want(b.call("place", map[string]string{"productCode": "comodo-positivessl", "years": "1", "params": asJSON(t, params)}), 1).field("certId")
	b.clock.add(time.Hour)
	if r := b.call("collect", map[string]string{"certId": id}); r.Status != StatusPending || len(b.Fetches()) != 0 {
		t.Errorf("status %s, fetches %+v", r.Status, b.Fetches())
	}
	if err := b.Approve(id, "a.example.com"); err != nil {
		t.Fatal(err)
	}
	if r := b.call("collect", map[string]string{"certId": id}); r.Status != StatusComplete {
		t.Errorf("status %s", r.Status)
	}
	if b.Approve("x", "a.example.com") == nil || b.Approve(id, "x") == nil {
		t.Error("approved something unknown")
	}
}

func TestMultiDomainWaitsForAll(t *testing.T) {
	b := newBench(t, nil)
	id := b.placed("comodo-positive-multi-domain", "", "a.example.com", "b.example.com")
	b.site.publish(b.info(id), "a.example.com")
	b.clock.add(time.Second)
	r := b.want(b.call("collect", map[string]string{"certId": id}), 1)
	var data struct {
		DCVList []struct {
			DomainName string `json:"domainName"`
			IsVerify   string `json:"is_verify"`
		} `json:"dcvList"`
	}
	if err := json.Unmarshal(r.Data, &data); err != nil {
		t.Fatal(err)
	}
	if r.Status != StatusPending || data.DCVList[0].IsVerify != "verified" || data.DCVList[1].IsVerify != "" {
		t.Errorf("status %s, list %+v", r.Status, data.DCVList)
	}
	before := len(b.Fetches())
	b.prove(id)
	for _, f := range b.Fetches()[before:] {
		if f.Host != "b.example.com" {
			t.Errorf("fetched %s, which was proven", f.Host)
		}
	}
}

func TestSetStatus(t *testing.T) {
	b := newBench(t, nil)
	id := b.issued("comodo-positivessl", "", "a.example.com")
	if err := b.SetStatus(id, StatusCancelled); err != nil {
		t.Fatal(err)
	}
	if r := b.call("collect", map[string]string{"certId": id}); r.Status != StatusCancelled || !b.info(id).Revoked {
		t.Errorf("status %s", r.Status)
	}
	b.want(b.call("reissue", map[string]string{"certId": id, "reason": "x", "uniqueValue": "n"}), -8)
	if b.SetStatus("x", "y") == nil {
		t.Error("changed an unknown order")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Core{
		"no token":       {Accounts: []Account{{}}},
		"same token":     {Accounts: []Account{{Token: "a"}, {Token: "a"}}},
		"bad address":    {Accounts: []Account{{Token: "a", AllowedIPs: []string{"x"}}}},
		"no code":        {Products: []Product{{ValidationType: DV, Standard: true}}},
		"no type":        {Products: []Product{{Code: "a", Standard: true}}},
		"no names":       {Products: []Product{{Code: "a", ValidationType: DV}}},
		"same product":   {Products: []Product{{Code: "a", ValidationType: DV, IP: true}, {Code: "a", ValidationType: DV, IP: true}}},
		"negative price": {Products: []Product{{Code: "a", ValidationType: DV, IP: true, PriceCents: map[int]int64{12: -1}}}},
	} {
		if ca, err := New(Config{Core: cfg}); err == nil {
			ca.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	b := newBench(t, nil)
	if err := b.Update(func(cfg *Config) { cfg.Accounts = []Account{{}} }); err == nil {
		t.Error("update accepted an account without token")
	}
	b.placed("comodo-positivessl", "", "a.example.com") // the old configuration holds
}

// TestSlowHostDoesNotHoldTheCall places an order for a host that never answers.
func TestSlowHostDoesNotHoldTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Now, cfg.Transport = time.Now, silent{} })
		start := time.Now()
		id := b.placed("comodo-positivessl", "", "a.example.com")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("place took %s", took)
		}
		<-time.After(10 * time.Second)
		synctest.Wait()
		fetches := b.Fetches()
		if len(fetches) != 6 || !strings.Contains(fetches[0].Result, "deadline") || b.info(id).Status != StatusPending {
			t.Errorf("fetches %+v", fetches)
		}
	})
}

// silent is a network where nobody answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestParallelPlaces sends one order many times at once: one order, one charge.
func TestParallelPlaces(t *testing.T) {
	b := newBench(t, nil)
	form := orderForm(t, "comodo-positivessl", "once", "a.example.com")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			_, body, err := post(t.Context(), b.Transport(), "http://sandbox", "place", form)
			var r reply
			if err != nil || json.Unmarshal([]byte(body), &r) != nil {
				t.Errorf("%s, %v", body, err)
			}
			ids[i] = r.field("certId")
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("orders %v", ids)
		}
	}
	if n := len(b.Charges()); n != 1 {
		t.Errorf("%d charges", n)
	}
}
