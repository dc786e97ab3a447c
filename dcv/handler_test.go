package dcv

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// passed is the status of requests that the handler passes on.
const passed = http.StatusTeapot

var next = caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(passed)
	return nil
})

func ask(t testing.TB, h *Handler, s *Store, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := h.serve(s, w, r, next); err != nil {
		t.Fatal(err)
	}
	return w
}

func newHandler() *Handler { return &Handler{logger: zap.NewNop()} }

func TestHandler(t *testing.T) {
	const body = "one\r\ntwo\n"
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "A1.txt", body, "example.com", "::1")))
	for _, tc := range []struct {
		method, host, target string
		want                 int
	}{
		{"GET", "example.com", "A1.txt", 200},
		{"HEAD", "example.com", "A1.txt", 200},
		{"GET", "Example.COM.:8080", "A1.txt", 200},
		{"GET", "www.example.com", "a1.txt", 200},
		{"GET", "[::1]:80", "A1.txt", 200},
		{"GET", "example.com", "A1.txt?cache=no", 200},
		{"POST", "example.com", "A1.txt", passed},
		{"OPTIONS", "example.com", "A1.txt", passed},
		{"GET", "example.org", "A1.txt", passed},
		{"GET", "example.com.evil.org", "A1.txt", passed},
		{"GET", "", "A1.txt", passed},
		{"GET", "example.com", "", passed},
		{"GET", "example.com", "A1.TXT", passed},
		{"GET", "example.com", "A1.txt/", passed},
		{"GET", "example.com", "A1.txt;x", passed},
		{"GET", "example.com", "A1.txt%00", passed},
		{"GET", "example.com", "A1.tx%74", passed},
		{"GET", "example.com", "./A1.txt", passed},
		{"GET", "example.com", "../pki-validation/A1.txt", passed},
		{"GET", "example.com", "%2e%2e/pki-validation/A1.txt", passed},
		{"GET", "example.com", "/A1.txt", passed},
		{"GET", "example.com", "%2fA1.txt", passed},
	} {
		t.Run(tc.method+" "+tc.host+" "+tc.target, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, "http://placeholder"+PathPrefix+tc.target, nil)
			r.Host = tc.host
			w := ask(t, newHandler(), s, r)
			if w.Code != tc.want {
				t.Fatalf("status %d, want %d", w.Code, tc.want)
			}
			if tc.want == passed {
				if len(w.Header()) != 0 || w.Body.Len() != 0 {
					t.Errorf("something was written: %v %q", w.Header(), w.Body)
				}
				return
			}
			want := body
			if tc.method == http.MethodHead {
				want = ""
			}
			if w.Body.String() != want {
				t.Errorf("body %q", w.Body)
			}
			for key, want := range map[string]string{"Content-Type": "text/plain", "Content-Length": fmt.Sprint(len(body)), "Cache-Control": "no-store", "Location": ""} {
				if got := w.Header().Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
		})
	}
}

func TestHandlerOutsideItsDirectory(t *testing.T) {
	present(t, "outside", testFile, testBody, "shop.example.com")
	for _, path := range []string{"/", "/" + testFile, "/.well-known/" + testFile, "/.well-known/pki-validation", "/x" + PathPrefix + testFile,
		"/.well-known%2fpki-validation/" + testFile, "//.well-known/pki-validation/" + testFile, "/.WELL-KNOWN/pki-validation/" + testFile} {
		r := httptest.NewRequest(http.MethodGet, "http://shop.example.com"+path, nil)
		w := httptest.NewRecorder()
		if err := newHandler().ServeHTTP(w, r, next); err != nil || w.Code != passed {
			t.Errorf("%s: status %d, %v", path, w.Code, err)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "http://shop.example.com"+PathPrefix+testFile, nil)
	w := httptest.NewRecorder()
	if err := newHandler().ServeHTTP(w, r, next); err != nil || w.Body.String() != testBody {
		t.Errorf("the file itself: status %d, %v", w.Code, err)
	}
}

func TestVisits(t *testing.T) {
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "a.txt", "one", "example.com")))
	visit := func(agent string) {
		r := httptest.NewRequest(http.MethodGet, "http://www.Example.com"+PathPrefix+"a.txt", nil)
		r.Header.Set("User-Agent", agent)
		r.RemoteAddr = "127.0.0.1:4321"
		ask(t, newHandler(), s, r)
	}
	visit(probeUserAgent)
	if n := s.VisitCount("a"); n != 0 {
		t.Errorf("our own probe counts as %d visits", n)
	}
	visit(strings.Repeat("long", 1000))
	v := s.Visits("a")
	if len(v) != 1 || v[0].Host != "www.example.com" || v[0].RemoteAddr != "127.0.0.1:4321" || v[0].Status != 200 ||
		len(v[0].UserAgent) != maxUserAgent || v[0].Time.IsZero() {
		t.Fatalf("got %+v", v)
	}
	for i := range 2 * maxVisits {
		visit(fmt.Sprint(i))
	}
	v = s.Visits("a")
	if len(v) != maxVisits || v[0].UserAgent != fmt.Sprint(maxVisits) || v[maxVisits-1].UserAgent != fmt.Sprint(2*maxVisits-1) {
		t.Errorf("got %d visits from %s to %s", len(v), v[0].UserAgent, v[len(v)-1].UserAgent)
	}
	if n := s.VisitCount("a"); n != 2*maxVisits+1 {
		t.Errorf("got %d visits in all", n)
	}
	must(t, s.CleanUp(t.Context(), nil, "a", nil))
	if s.Visits("a") != nil || s.VisitCount("a") != 0 {
		t.Error("the visits outlived their challenge")
	}
}

// The header handler of a site changes values in place.
func TestHeadersOfOneSiteAreNotThoseOfOthers(t *testing.T) {
	s := NewStore()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "a.txt", "one", "example.com")))
	of := func(site caddyhttp.MiddlewareHandler) http.Header {
		r := httptest.NewRequest(http.MethodGet, "http://example.com"+PathPrefix+"a.txt", nil)
		r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
		w := httptest.NewRecorder()
		h := newHandler()
		must(t, site.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return h.serve(s, w, r, next) })))
		return w.Header()
	}
	want := of(new(headers.Handler)).Clone()
	of(&headers.Handler{Response: &headers.RespHeaderOps{Deferred: true, HeaderOps: &headers.HeaderOps{Replace: map[string][]headers.Replacement{
		"*": {{Search: "no-store", Replace: "public"}, {Search: "plain", Replace: "html"}, {Search: "nosniff", Replace: "x"}, {Search: "3", Replace: "4"}},
	}}}})
	if got := of(new(headers.Handler)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A handler that was placed by hand stands behind the one that is on each server.
func TestTwoHandlers(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	defer s.Manage(storage, writtenOut("example.com"))()
	must(t, s.Present(t.Context(), nil, challenge(t, "a", "A.txt", "one", "example.com")))
	h := newHandler()
	get := func(path string) int {
		r := httptest.NewRequest(http.MethodGet, "http://example.com"+path, nil)
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, make(map[string]any)))
		w := httptest.NewRecorder()
		must(t, h.serve(s, w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, ".old")
			return h.serve(s, w, r, next)
		})))
		return w.Code
	}
	if code := get(PathPrefix + "A.TXT"); code != passed || s.VisitCount("a") != 1 || storage.count("list") != 2 {
		t.Errorf("status %d, %d visits, %d looks into the storage", code, s.VisitCount("a"), storage.count("list"))
	}
	if code := get(PathPrefix + "A.txt.old"); code != http.StatusOK {
		t.Errorf("status %d behind a rewrite", code)
	}
}

func TestHandlerReadsStorage(t *testing.T) {
	storage := newMemoryStorage("shared")
	must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
	core, logs := observer.New(zap.InfoLevel)
	h := &Handler{logger: zap.New(core)}
	s := NewStore()
	defer s.Manage(storage, everyHost)()
	w := ask(t, h, s, httptest.NewRequest(http.MethodGet, "http://example.com"+PathPrefix+"a.txt", nil))
	if w.Body.String() != "one" || logs.FilterMessage("validation file served").Len() != 1 {
		t.Errorf("got %q, logs %v", w.Body, logs.All())
	}
	storage.set(func() { storage.fail = fmt.Errorf("no connection") })
	w = ask(t, h, s, httptest.NewRequest(http.MethodGet, "http://example.org"+PathPrefix+"a.txt", nil))
	if w.Code != passed || logs.FilterMessage("reading shared validation files failed").Len() != 1 {
		t.Errorf("got %d, logs %v", w.Code, logs.All())
	}
}

func TestHandlerCaddyfile(t *testing.T) {
	for input, ok := range map[string]bool{"dcv": true, "dcv {\n}": true, "dcv arg": false, "dcv {\noption\n}": false} {
		if err := new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input)); (err == nil) != ok {
			t.Errorf("%q: %v", input, err)
		}
	}
}

// FuzzChallengePath: whatever is requested, only the exact file leaves the handler, and only under
// its host and path.
func FuzzChallengePath(f *testing.F) {
	f.Add("GET", "example.com", "/.well-known/pki-validation/A1.txt", "")
	f.Add("HEAD", "WWW.Example.com:80", "/.well-known/pki-validation/a1.txt", "")
	f.Add("GET", "example.com", "/.well-known/pki-validation/A1.txt", "/.well-known%2fpki-validation/A1.txt")
	f.Add("GET", "example.com", "/.well-known/pki-validation/../pki-validation/A1.txt", "")
	f.Add("GET", "exa\u212Aple.com", "/.well-known/pki-validation/A1.txt/", "")
	f.Add("GET", "[example.com]", "//.well-known/pki-validation/A1.txt", "")
	f.Add("get", "example.com..", "/.well-known/pki-validation/\x00A1.txt", "")
	const body = "the file"
	s := NewStore()
	if err := s.Present(f.Context(), nil, challenge(f, "a", "A1.txt", body, "example.com")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, host, path, rawPath string) {
		r := &http.Request{Method: method, Host: host, URL: &url.URL{Path: path, RawPath: rawPath}, Header: http.Header{}}
		w := ask(t, newHandler(), s, r)
		if w.Code == passed {
			if w.Body.Len() != 0 {
				t.Errorf("body %q", w.Body)
			}
			return
		}
		name, isOurs := strings.CutPrefix(path, PathPrefix)
		if !isOurs || name != "A1.txt" && name != "a1.txt" || rawPath != "" || method != "GET" && method != "HEAD" {
			t.Errorf("%s %q %q was answered", method, path, rawPath)
		}
		if h := NormalizeHost(host); h != "example.com" && h != "www.example.com" {
			t.Errorf("host %q was answered", host)
		}
		if got := w.Body.String(); method == "GET" && got != body || method == "HEAD" && got != "" {
			t.Errorf("body %q", got)
		}
	})
}
