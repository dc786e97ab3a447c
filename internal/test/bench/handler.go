package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

const (
	siteHost = "shop.example.com"
	fileName = "A1B2C3D4E5F60718293A4B5C6D7E8F90.txt"
	fileBody = "c0ffee254729296a45a3885639ac7e10f9d54979\nsectigo.com\nunique"
)

// benchFile serves one validation file as the plugin does, recording the visit, and as
// certmagic's ZeroSSL issuer does, on the same file storage.
func benchFile(ctx context.Context, o options) ([]row, error) {
	storage := &certmagic.FileStorage{Path: o.dir}
	ch, err := dcv.NewChallenge("bench-file", []string{siteHost}, fileName, fileBody)
	if err != nil {
		return nil, err
	}
	if err := dcv.Live.Present(ctx, storage, ch); err != nil {
		return nil, err
	}
	defer func() { _ = dcv.Live.CleanUp(ctx, storage, ch.ID, ch.Hosts) }() // the folder is removed anyway
	zero, err := zeroSSL(ctx, storage, siteHost, ch.Path)
	if err != nil {
		return nil, err
	}
	ours, release, err := newHandler()
	if err != nil {
		return nil, err
	}
	defer release()

	w, r := newWriter(), request(siteHost, ch.Path)
	serve := []func() error{
		func() error {
			w.reset()
			return ours.ServeHTTP(w, r, notServed)
		},
		func() error {
			w.reset()
			zero.ServeHTTP(w, r)
			return nil
		},
	}
	before, served := dcv.Live.VisitCount(ch.ID), 0
	for i := range serve {
		plain := serve[i]
		serve[i] = func() error {
			if err := plain(); err != nil {
				return err
			}
			if w.status != http.StatusOK || w.written != len(fileBody) {
				return fmt.Errorf("the file was not served: status %d, %d bytes", w.status, w.written)
			}
			if i == 0 {
				served++
			}
			return nil
		}
	}
	got, err := interleave(pick(o, 41, 5), serve...)
	if err != nil {
		return nil, err
	}
	if visits := dcv.Live.VisitCount(ch.ID) - before; visits != uint64(served) {
		return nil, fmt.Errorf("%d of %d visits were recorded", visits, served)
	}
	dcvRate, zeroRate := 1e9/got[0].ns, 1e9/got[1].ns
	return []row{
		{
			claim: "serving a validation file, requests per second, against certmagic's ZeroSSL issuer on the same file storage",
			ours:  number(dcvRate) + "/s", peer: number(zeroRate) + "/s",
			value: dcvRate / zeroRate, unit: "×", want: bound{atLeast, 70, 0.1},
		},
		{
			claim: "allocations for it",
			ours:  number(got[0].allocs), peer: number(got[1].allocs),
			value: got[0].allocs / got[1].allocs, unit: "×",
		},
	}, nil
}

// benchMiss passes a request that is not for the handler through it. What the next
// handler costs by itself is subtracted. The route that an issuer attaches compares the
// path in its matcher in the same way, and does not even reach the handler.
func benchMiss(_ context.Context, o options) ([]row, error) {
	ours, release, err := newHandler()
	if err != nil {
		return nil, err
	}
	defer release()
	var next caddyhttp.Handler = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	// Of all requests that are not ours, this one has the most in common with ours.
	r := request(siteHost, "/.well-known/acme-challenge/token")
	got, err := interleave(pick(o, 81, 9),
		func() error { return ours.ServeHTTP(nil, r, next) },
		func() error { return next.ServeHTTP(nil, r) },
	)
	if err != nil {
		return nil, err
	}
	return []row{
		{
			claim: "what a request that is not for the CA pays for the handler, in the least disturbed round",
			ours:  number(got[0].least) + " ns", peer: number(got[1].least) + " ns without",
			value: max(got[0].least-got[1].least, 0), unit: " ns", want: bound{atMost, 10, 0.25},
		},
		{
			claim: "allocations for it",
			ours:  number(got[0].allocs), peer: number(got[1].allocs),
			value: got[0].allocs, want: bound{kind: atMost, limit: 0},
		},
	}, nil
}

// cost is what one operation takes. Where nanoseconds count, the least of all rounds is
// closest to the truth: other processes can only add to it.
type cost struct{ ns, least, allocs float64 }

// roundTime is long enough for thousands of operations and short enough to fit between
// the turns of other processes, now and then.
const roundTime = 10 * time.Millisecond

// interleave measures the operations in turn, for this many rounds, alternately forwards
// and backwards, and returns the median cost and the least time of each.
func interleave(rounds int, ops ...func() error) ([]cost, error) {
	if err := flag.Set("test.benchtime", roundTime.String()); err != nil {
		return nil, err
	}
	ns, allocs := make([][]float64, len(ops)), make([][]float64, len(ops))
	for round := range rounds {
		for i := range ops {
			if round%2 == 1 {
				i = len(ops) - 1 - i
			}
			result, err := measure(ops[i])
			if err != nil {
				return nil, err
			}
			ns[i] = append(ns[i], float64(result.T.Nanoseconds())/float64(result.N))
			allocs[i] = append(allocs[i], float64(result.AllocsPerOp()))
		}
	}
	got := make([]cost, len(ops))
	for i := range ops {
		got[i] = cost{median(ns[i]), slices.Min(ns[i]), median(allocs[i])}
	}
	return got, nil
}

func measure(op func() error) (testing.BenchmarkResult, error) {
	var err error
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if err = op(); err != nil {
				b.FailNow()
			}
		}
	})
	if err != nil {
		return result, err
	}
	if result.N == 0 {
		return result, errors.New("nothing was measured")
	}
	return result, nil
}

// quietLogging logs errors only.
func quietLogging() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{Level: "ERROR"}},
	}}
}

// quiet is a config that logs little and has no admin endpoint.
func quiet() *caddy.Config {
	return &caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}, Logging: quietLogging()}
}

// newContext returns a context to load modules with. Release cleans them up.
func newContext() (ctx caddy.Context, release func(), err error) {
	root, err := caddy.ProvisionContext(quiet())
	if err != nil {
		return caddy.Context{}, nil, err
	}
	ctx, release = caddy.NewContext(root)
	return ctx, release, nil
}

// newHandler loads the handler as a config would.
func newHandler() (h caddyhttp.MiddlewareHandler, release func(), err error) {
	ctx, release, err := newContext()
	if err != nil {
		return nil, nil, err
	}
	mod, err := ctx.LoadModuleByID("http.handlers.dcv", json.RawMessage("{}"))
	if err != nil {
		release()
		return nil, nil, err
	}
	h, ok := mod.(caddyhttp.MiddlewareHandler)
	if !ok {
		release()
		return nil, nil, fmt.Errorf("module %T is not a handler", mod)
	}
	return h, release, nil
}

// zeroSSL returns certmagic's handler for ZeroSSL's validation files, with one file.
func zeroSSL(ctx context.Context, storage certmagic.Storage, host, urlPath string) (http.Handler, error) {
	token, err := json.Marshal(acme.Challenge{URL: "http://" + host + urlPath, Token: fileBody})
	if err != nil {
		return nil, err
	}
	// The layout of certmagic's challenge tokens, which has no exported name.
	if err := storage.Store(ctx, path.Join("zerossl", "challenge_tokens", host+".json"), token); err != nil {
		return nil, err
	}
	issuer := &certmagic.ZeroSSLIssuer{Storage: storage, Logger: zap.NewNop()}
	return issuer.HTTPValidationHandler(http.NotFoundHandler()), nil
}

var notServed = caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusNotFound)
	return nil
})

func request(host, urlPath string) *http.Request {
	return &http.Request{
		Method:     http.MethodGet,
		Host:       host,
		RemoteAddr: "127.0.0.1:4321",
		URL:        &url.URL{Path: urlPath},
		Header:     http.Header{"User-Agent": {"Sectigo DCV"}},
	}
}

// writer is a response writer that costs next to nothing, so that it is the handlers that
// are measured.
type writer struct {
	header          http.Header
	status, written int
}

func newWriter() *writer { return &writer{header: make(http.Header)} }

func (w *writer) reset() {
	clear(w.header)
	w.status, w.written = 0, 0
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) { w.status = status }

func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.written += len(p)
	return len(p), nil
}
