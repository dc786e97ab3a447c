package dcv

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// nullWriter is a response writer that costs as little as possible, so the handlers are measured and
// not a recorder.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}
func benchRequest(host, urlPath string) *http.Request {
	return &http.Request{
		Method:     http.MethodGet,
		Host:       host,
		RemoteAddr: "127.0.0.1:4321",
		URL:        &url.URL{Path: urlPath},
		Header:     http.Header{"User-Agent": {"Sectigo DCV"}},
	}
}

// BenchmarkHandlerHit serves one file, both as this package does and as certmagic's ZeroSSL issuer
// does. Both have it in the same file storage.
func BenchmarkHandlerHit(b *testing.B) {
	const host = "shop.example.com"
	storage := &certmagic.FileStorage{Path: b.TempDir()}
	ch := challenge(b, "order", testFile, testBody, host)
	if err := Live.Present(b.Context(), storage, ch); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = Live.CleanUp(b.Context(), storage, ch.ID, ch.Hosts) }()
	r := benchRequest(host, ch.Path)

	b.Run("dcv", func(b *testing.B) {
		w := &nullWriter{header: http.Header{}}
		h := newHandler()
		before := Live.VisitCount(ch.ID)
		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			if err := h.ServeHTTP(w, r, next); err != nil {
				b.Fatal(err)
			}
		}
		if w.header.Get("Content-Type") == "" || Live.VisitCount(ch.ID)-before < uint64(b.N) {
			b.Fatal("the file was not served")
		}
	})

	b.Run("certmagic", func(b *testing.B) {
		// The layout of certmagic's challenge tokens, which has no exported name.
		key := path.Join("zerossl", "challenge_tokens", host+".json")
		token, err := json.Marshal(acme.Challenge{URL: "http://" + host + ch.Path, Token: testBody})
		if err != nil {
			b.Fatal(err)
		}
		if err := storage.Store(b.Context(), key, token); err != nil {
			b.Fatal(err)
		}
		w := &nullWriter{header: http.Header{}}
		missed := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { b.Fatal("the file was not served") })
		h := (&certmagic.ZeroSSLIssuer{Storage: storage, Logger: zap.NewNop()}).HTTPValidationHandler(missed)
		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}
		if w.header.Get("Content-Type") == "" {
			b.Fatal("the file was not served")
		}
	})
}

// BenchmarkMatcherMiss measures what all other requests pay for the attached route.
func BenchmarkMatcherMiss(b *testing.B) {
	r := benchRequest("shop.example.com", "/.well-known/acme-challenge/token")
	b.Run("matcher", func(b *testing.B) {
		var sets caddyhttp.RequestMatcherWithError = pathMatcher{}
		b.ReportAllocs()
		for b.Loop() {
			if match, _ := sets.MatchWithError(r); match {
				b.Fatal("match")
			}
		}
	})
	b.Run("handler", func(b *testing.B) {
		h := newHandler()
		ok := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
		b.ReportAllocs()
		for b.Loop() {
			if err := h.ServeHTTP(nil, r, ok); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLookup measures the part of a hit whose cost is constant.
func BenchmarkLookup(b *testing.B) {
	s := NewStore()
	if err := s.Present(b.Context(), nil, challenge(b, "order", testFile, testBody, "shop.example.com")); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Lookup("shop.example.com", PathPrefix+testFile); !ok {
			b.Fatal("not found")
		}
	}
}
