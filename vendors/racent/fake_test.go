package racent

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// fake is a strict service: it fails the test on any request that is not exactly
// the expected one, down to each form field and file.
type fake struct {
	t       *testing.T
	orders  *Orders
	logs    *observer.ObservedLogs
	path    string
	form    map[string]string
	sent    map[string]string // the latest form
	respond http.HandlerFunc
	calls   int
	also    map[string]string // answers of other calls by endpoint, with forms that are not compared
}

func newFake(t testing.TB) *fake {
	t.Helper()
	return newFakeWith(t, Options{})
}

func newFakeWith(t testing.TB, opts Options) *fake {
	t.Helper()
	f := new(fake)
	f.t, _ = t.(*testing.T)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	core, logs := observer.New(zap.DebugLevel)
	f.logs = logs
	var err error
	f.orders, err = New(Config{
		Secret: testToken, Endpoint: srv.URL + "/ssl", Logger: zap.New(core),
		Description: vendors.Description{Name: "racent"},
	}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.orders.Close)
	return f
}

// expect sets the next requests and their answer. A nil form is not compared.
func (f *fake) expect(endpoint string, form map[string]string, status int, body string) {
	f.path, f.form, f.calls = "/ssl/"+endpoint, form, 0
	f.respond = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if body, ok := f.also[strings.TrimPrefix(r.URL.Path, "/ssl/")]; ok && r.URL.Path != f.path {
		io.WriteString(w, body)
		return
	}
	f.calls++
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || r.Method != "POST" {
		f.t.Errorf("got %s with %q", r.Method, r.Header.Get("Content-Type"))
	}
	if r.URL.String() != f.path {
		f.t.Errorf("got %s, want %s", r.URL, f.path)
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
	for name, files := range r.MultipartForm.File {
		file, err := files[0].Open()
		if err != nil || len(files) != 1 {
			f.t.Fatalf("%s: %d files, %v", name, len(files), err)
		}
		content, err := io.ReadAll(file)
		if err != nil {
			f.t.Errorf("%s: %v", name, err)
		}
		got[name] = files[0].Filename + ": " + string(content)
	}
	f.sent = got
	if f.form != nil {
		want := maps.Clone(f.form)
		want["api_token"] = testToken
		got, want["params"] = maps.Clone(got), canonical(want["params"])
		got["params"] = canonical(got["params"])
		if !reflect.DeepEqual(got, want) {
			f.t.Errorf("%s:\ngot  %q\nwant %q", r.URL, got, want)
		}
	}
	f.respond(w, r)
}

// canonical returns JSON whose objects have their members in order.
func canonical(text string) string {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return text
	}
	out, _ := json.Marshal(v)
	return string(out)
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
		Unique:      "cn20250101a",
	}
}

// quotedCSR is the CSR inside JSON.
func quotedCSR() string {
	return fmt.Sprintf("%q", csrtest.Worked)
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
}
