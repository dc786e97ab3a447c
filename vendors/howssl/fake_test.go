package howssl

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
)

// fake is a strict service: it fails the test on any request that is not exactly
// an expected one, down to each form field.
type fake struct {
	t       *testing.T
	orders  *Orders
	logs    *observer.ObservedLogs
	answers map[string]answer // by path below /Home/
	calls   map[string]int
	hooks   map[string]func()
}

// answer is what a call must look like, and what it gets. A nil form is not compared.
type answer struct {
	form   map[string]string
	status int // zero means 200
	body   string
}

func newFake(t testing.TB, ids ...CheckID) *fake {
	t.Helper()
	f := &fake{answers: make(map[string]answer), calls: make(map[string]int), hooks: make(map[string]func())}
	f.t, _ = t.(*testing.T)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	core, logs := observer.New(zap.DebugLevel)
	f.logs = logs
	var err error
	f.orders, err = New(
		Config{Secret: testToken, Endpoint: srv.URL, Logger: zap.New(core), Description: vendors.Description{Name: "howssl"}},
		Options{CreateOrderFields: map[string]string{"domains": domainField}, CheckIDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.orders.Close)
	return f
}

// expect sets the answer of a call.
func (f *fake) expect(path string, form map[string]string, body string) {
	f.answers[path] = answer{form: form, body: body}
}

// after sets what happens once a call has been answered.
func (f *fake) after(path string, do func()) { f.hooks[path] = do }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.String()[len("/Home/"):]
	f.calls[path]++
	a, ok := f.answers[path]
	if !ok {
		f.t.Errorf("unexpected call of %s", r.URL)
		http.NotFound(w, r)
		return
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || r.Method != http.MethodPost {
		f.t.Errorf("got %s with %q", r.Method, r.Header.Get("Content-Type"))
	}
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		f.t.Errorf("form: %v", err)
		return
	}
	got := make(map[string]string)
	for name, values := range r.MultipartForm.Value {
		if len(values) != 1 {
			f.t.Errorf("%s occurs %d times", name, len(values))
		}
		got[name] = values[0]
	}
	if a.form != nil {
		want := maps.Clone(a.form)
		want["token"] = testToken
		if !reflect.DeepEqual(got, want) {
			f.t.Errorf("%s:\ngot  %q\nwant %q", r.URL, got, want)
		}
	}
	if hook := f.hooks[path]; hook != nil {
		hook()
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_, _ = io.WriteString(w, a.body)
}

const (
	workedFile  = "07182696BBD74EE89627E3B4D943258A.txt"
	workedHash  = "d73f0e02451bbf32a61a1ac89a8eba6c4ae1ed2b71bf65316411ed284de108d2"
	workedLabel = "_07182696bbd74ee89627e3b4d943258a"
)

func workedRequest() vendors.OrderRequest {
	block, _ := pem.Decode([]byte(csrtest.Worked))
	return vendors.OrderRequest{
		OrderConfig: goodConfig(),
		Reference:   "ref-1",
		Names:       []string{"shop.example.com"},
		CSR:         block.Bytes,
		PreparedID:  "chk-1",
	}
}

func workedReissue() vendors.OrderRequest {
	req := workedRequest()
	return vendors.OrderRequest{OrderConfig: req.OrderConfig, Reference: req.Reference, Names: req.Names, CSR: req.CSR}
}

// workedChallenges are the proofs for the worked CSR.
func workedChallenges() []vendors.Challenge {
	return []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: workedFile, FileContent: workedHash + "\nsectigo.com"},
		{Method: vendors.MethodDNS, RecordName: workedLabel, RecordType: "CNAME",
			RecordValue: workedHash[:32] + "." + workedHash[32:] + ".sectigo.com"},
	}
}

const (
	ok         = `{"status":true,"msg":"ok","code":200}`
	refusal    = `{"status":false,"msg":"余额不足"}`
	badToken   = `{"status":"false","code":501,"msg":"The operation needs the correct Token. Please verify your Token"}`
	noReissues = `{"status":true,"data":[]}`
)

func data(json string) string { return `{"status":true,"msg":"ok","data":` + json + `,"code":200}` }

func infoOf(status string) string {
	return data(`{"order_status":` + status + `,"validity_status":"[{\"value\":\"域名:x<br>\",\"status\":\"2\"},{\"status\":1}]",` +
		`"total_amount":[{"value":"6.95","unit":"CNY"},{"value":"44.65","unit":"USD"}]}`)
}

func reissueOf(status, csr string) string {
	return fmt.Sprintf(`{"reissue_id":"r1","status_code":%s,"status_message":"To be reviewed","validity_record":null,"csr_content":%q}`, status, csr)
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
}

func mustHTTP(t testing.TB, transport http.RoundTripper) *kit.Client {
	t.Helper()
	c, err := kit.NewClient(Config{
		Description: vendors.Description{Name: "howssl"}, Endpoint: "https://127.0.0.1", Secret: testToken, Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
