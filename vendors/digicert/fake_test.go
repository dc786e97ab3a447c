package digicert

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// fake is a strict service: it fails the test on any request that is not one of
// the expected ones, down to each field.
type fake struct {
	t      testing.TB
	orders *Orders
	logs   *observer.ObservedLogs
	known  map[string]exchange // by method, path and query
	calls  map[string]int
}

// exchange is an expected request and its answer. The body is compared as JSON;
// empty means none, "*" any.
type exchange struct {
	body   string
	status int
	answer string
}

func newFake(t testing.TB, opts ...Options) *fake {
	t.Helper()
	f := &fake{t: t, known: make(map[string]exchange), calls: make(map[string]int)}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	core, logs := observer.New(zap.DebugLevel)
	f.logs = logs
	cfg := Config{
		Secret: testKey, Endpoint: srv.URL + "/services/v2", Logger: zap.New(core),
		Description: vendors.Description{Name: "digicert"},
	}
	var err error
	if f.orders, err = New(cfg, append(opts, Options{})[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.orders.Close)
	return f
}

func (f *fake) expect(request, body string, status int, answer string) {
	f.known[request] = exchange{body, status, answer}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := r.Method + " " + strings.TrimPrefix(r.URL.String(), "/services/v2")
	f.calls[request]++
	if r.Header.Get("X-DC-DEVKEY") != testKey || r.Header.Get("Content-Type") != "application/json" || r.UserAgent() == "" {
		f.t.Errorf("%s: headers %v", request, r.Header)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("%s: %v", request, err)
	}
	want, ok := f.known[request]
	if !ok {
		f.t.Errorf("unexpected request %s with %s", request, body)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	if want.body != "*" && !sameJSON(string(body), want.body) {
		f.t.Errorf("%s:\ngot  %s\nwant %s", request, body, want.body)
	}
	w.WriteHeader(want.status)
	io.WriteString(w, want.answer)
}

func sameJSON(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// refusal returns an answer with one error.
func refusal(code string) string {
	return `{"errors":[{"code":"` + code + `","message":"text of ` + code + `"}]}`
}

func workedRequest() vendors.OrderRequest {
	return vendors.OrderRequest{
		OrderConfig: goodConfig(),
		Reference:   "ref-1",
		Names:       []string{"example.com", "www.example.com"},
		CSR:         []byte("der of a request"),
	}
}

func workedReissue() vendors.OrderRequest {
	req := workedRequest()
	return vendors.OrderRequest{OrderConfig: req.OrderConfig, Reference: req.Reference, Names: req.Names, CSR: req.CSR}
}

// workedCSR is the CSR of the worked request inside JSON.
const workedCSR = `"-----BEGIN CERTIFICATE REQUEST-----\nZGVyIG9mIGEgcmVxdWVzdA==\n-----END CERTIFICATE REQUEST-----\n"`

const workedCertificate = `{"common_name":"example.com","dns_names":["www.example.com"],"csr":` + workedCSR +
	`,"signature_hash":"sha256","server_platform":{"id":-1}}`

func testPEM(contents ...string) string {
	var b bytes.Buffer
	for _, c := range contents {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: []byte(c)})
	}
	return b.String()
}

func pemRequest(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
