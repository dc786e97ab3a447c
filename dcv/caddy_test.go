package dcv

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"
	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"
)

// storageRoot outlives the tests, because certmagic's jobs outlive a config by a
// moment and would write into a directory that is being removed.
var storageRoot string

func TestMain(m *testing.M) {
	var err error
	if storageRoot, err = os.MkdirTemp("", "dcv"); err != nil {
		panic(err)
	}
	caddy.RegisterModule(&testIssuer{})
	httpcaddyfile.RegisterHandlerDirective("dcv", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		handler := new(Handler)
		return handler, handler.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("dcv", httpcaddyfile.Before, "redir")
	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			os.RemoveAll(storageRoot)
			os.Exit(code)
		}),
		// Caddy keeps one certificate cache across configs, and certmagic's file locks take a few
		// seconds to notice that they were released.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	)
}

// testIssuer is the smallest issuer that keeps the contract of Attach. It signs everything.
type testIssuer struct {
	Label string `json:"label,omitempty"`

	ctx caddy.Context
	set int
}

// observed is what the issuers of the newest config saw.
var observed struct {
	sync.Mutex
	ctx           caddy.Context // of the issuer provisioned last
	httpAppFirst  bool
	redirectsLate bool
}

func (*testIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.dcvtest", New: func() caddy.Module { return new(testIssuer) }}
}

func (iss *testIssuer) Provision(ctx caddy.Context) error {
	iss.ctx = ctx
	observed.Lock()
	defer observed.Unlock()
	observed.ctx = ctx
	observed.httpAppFirst = false
	for _, module := range ctx.Modules() {
		if _, ok := module.(*caddyhttp.App); ok {
			observed.httpAppFirst = true
		}
	}
	return nil
}

func (iss *testIssuer) SetConfig(*certmagic.Config) {
	if iss.set++; iss.set > 1 {
		if err := Attach(iss.ctx); err != nil {
			panic(err)
		}
	}
}

func (iss *testIssuer) IssuerKey() string { return "dcvtest" + iss.Label }

func (iss *testIssuer) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: csr.DNSNames[0]},
		DNSNames:     csr.DNSNames,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(90 * 24 * time.Hour),
	}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, csr.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func (iss *testIssuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.NextArg()
	iss.Label = d.Val()
	return nil
}

var (
	_ certmagic.Issuer      = (*testIssuer)(nil)
	_ caddytls.ConfigSetter = (*testIssuer)(nil)
)

// site is a Caddy that runs a Caddyfile, in which HTTP and HTTPS stand for its ports.
type site struct {
	t           testing.TB
	HTTP, HTTPS int
	storage     string
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, HTTP: freePort(t), HTTPS: freePort(t)}
	var err error
	if s.storage, err = os.MkdirTemp(storageRoot, "site"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping caddy: %v", err)
		}
	})
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// adapt returns the JSON of a Caddyfile, with global options added that isolate the test. HTTP and
// HTTPS in it stand for the ports.
func (s *site) adapt(globals, sites string) []byte {
	s.t.Helper()
	text := fmt.Sprintf("{\nadmin off\npersist_config off\nhttp_port HTTP\nhttps_port HTTPS\ndefault_bind 127.0.0.1\ngrace_period 1s\n"+
		"skip_install_trust\nstorage file_system %s\nlog {\noutput discard\n}\n%s\n}\n%s\n", s.storage, globals, sites)
	text = strings.ReplaceAll(text, "HTTPS", strconv.Itoa(s.HTTPS))
	text = strings.ReplaceAll(text, "HTTP", strconv.Itoa(s.HTTP))
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	out, _, err := adapter.Adapt([]byte(text), nil)
	if err != nil {
		s.t.Fatalf("adapting: %v\n%s", err, text)
	}
	return out
}

func (s *site) load(config []byte) {
	s.t.Helper()
	if err := caddy.Load(config, true); err != nil {
		s.t.Fatalf("loading: %v\n%s", err, config)
	}
	app, err := observed.ctx.AppIfConfigured("http")
	if err != nil {
		return
	}
	if srv := app.(*caddyhttp.App).Servers[redirectServer]; srv != nil {
		observed.redirectsLate = len(srv.Routes[0].MatcherSets) == 0
	}
}

// patch changes adapted JSON in a place that the Caddyfile cannot reach.
func patch(t testing.TB, config []byte, change func(map[string]any)) []byte {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(config, &tree); err != nil {
		t.Fatal(err)
	}
	change(tree)
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type answer struct {
	status   int
	body     string
	location string
	header   http.Header
}

// get sends a request to the HTTP port, whatever the name is.
func (s *site) get(host, path string) answer { return s.do(http.MethodGet, host, path) }

func (s *site) do(method, host, path string) answer {
	s.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dialLoopback}
	req, err := http.NewRequest(method, fmt.Sprintf("http://%s:%d%s", host, s.HTTP, path), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	// Old and new servers share a socket while a config is replaced, and the old
	// ones drop what they accept while they shut down.
	resp, err := transport.RoundTrip(req)
	for retries := 0; err != nil && retries < 20; retries++ {
		resp, err = transport.RoundTrip(req)
	}
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, body: string(body), location: resp.Header.Get("Location"), header: resp.Header}
}

// dialLoopback resolves every name to 127.0.0.1.
func dialLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

// present puts a challenge into the process-wide store for the test's duration.
func present(t testing.TB, id, file, body string, hosts ...string) Challenge {
	t.Helper()
	ch, err := NewChallenge(id, hosts, file, body)
	if err != nil {
		t.Fatal(err)
	}
	if err := Live.Present(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Live.CleanUp(context.Background(), nil, id, nil); err != nil {
			t.Error(err)
		}
	})
	return ch
}
