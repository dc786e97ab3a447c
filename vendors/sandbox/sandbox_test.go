package sandbox

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestMain(m *testing.M) {
	// certmagic's file storage may take five seconds to notice that a lock is gone.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// load provisions a module as a config does, and cleans it up when unload is
// called.
func load(t *testing.T, config map[string]any) (s *Sandbox, unload func(), err error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("tls.vendors.sandbox", raw)
	if err != nil {
		return nil, cancel, err
	}
	return mod.(*Sandbox), cancel, nil
}

func mustLoad(t *testing.T, config map[string]any) (*Sandbox, func()) {
	t.Helper()
	s, unload, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return s, unload
}

// web serves validation files on a loopback port.
type web struct {
	mu    sync.Mutex
	files map[string]string
	port  int
}

func newWeb(t *testing.T) *web {
	t.Helper()
	w := &web{files: make(map[string]string)}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if w.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	content, ok := w.files[r.URL.Path]
	if !ok {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	io.WriteString(rw, content)
}

func order(t *testing.T, reference string) vendors.OrderRequest {
	t.Helper()
	return orderFor(t, reference, "demo.localhost")
}

func orderFor(t *testing.T, reference string, names ...string) vendors.OrderRequest {
	t.Helper()
	csr := csrtest.DER(t, names...)
	return vendors.OrderRequest{
		OrderConfig: vendors.OrderConfig{
			Product: "comodo-positivessl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP,
			Contact: vendors.Contact{
				FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", Phone: "+44.2012345678",
				Organization: "Analytical Engines", JobTitle: "Engineer", Address: "1 Dorset Street",
				City: "London", State: "London", PostalCode: "W1U 4EG", Country: "GB",
			},
		},
		Reference: reference, Names: names, CSR: csr, Unique: "u" + reference,
	}
}

func TestCertificateWithoutAccount(t *testing.T) {
	w := newWeb(t)
	dir := t.TempDir()
	s, unload := mustLoad(t, map[string]any{"data_dir": dir, "http_port": w.port, "lifetime": "48h", "year": "73h"})
	defer unload()

	about := s.Describe()
	if about.Name != "sandbox" || !about.AnyName || about.HTTPPort != w.port || about.RenewWindow != 18*time.Hour || about.Supports(vendors.MethodDNS) || !strings.HasPrefix(about.Account, "sandbox/") {
		t.Errorf("description %+v", about)
	}
	req := order(t, "1")
	predicted, err := s.Predict(req)
	if err != nil || len(predicted) != 1 {
		t.Fatalf("predicted %v, %v", predicted, err)
	}
	w.mu.Lock()
	w.files["/.well-known/pki-validation/"+predicted[0].FileName] = predicted[0].FileContent
	w.mu.Unlock()
	if err := s.CheckConfig(req.OrderConfig); err != nil {
		t.Fatal(err)
	}
	placed, err := s.Place(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Status(t.Context(), placed.ID)
	if err != nil || got.Status != vendors.StatusIssued || len(got.Certificates) != 2 {
		t.Fatalf("order %+v, %v", got, err)
	}

	rootPEM, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootPEM) {
		t.Fatal("root.pem has no certificate")
	}
	leaf, err := x509.ParseCertificate(got.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	above, err := x509.ParseCertificate(got.Certificates[1])
	if err != nil {
		t.Fatal(err)
	}
	intermediates.AddCert(above)
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "demo.localhost", Roots: roots, Intermediates: intermediates}); err != nil {
		t.Error(err)
	}
	if left := time.Until(leaf.NotAfter); left > 48*time.Hour || left < 47*time.Hour {
		t.Errorf("certificate is valid for %v", left)
	}
}

func TestSurvivesReloadAndRestart(t *testing.T) {
	dir := t.TempDir()
	first, unloadFirst := mustLoad(t, map[string]any{"data_dir": dir})
	address, account := first.front.url(), first.Describe().Account
	placed, err := first.Place(t.Context(), order(t, "1"))
	if err != nil {
		t.Fatal(err)
	}

	// Reload: the new config is loaded before the old one ends.
	second, unloadSecond := mustLoad(t, map[string]any{"data_dir": dir + "/.", "delay": "1h"})
	unloadFirst()
	if second.front.url() != address || second.service.ca != inPool(t, dir).ca {
		t.Error("the reload started another service")
	}
	if _, err := second.Status(t.Context(), placed.ID); err != nil {
		t.Errorf("after reload: %v", err)
	}

	// Reload with another address: both are served while both configs exist.
	third, unloadThird := mustLoad(t, map[string]any{"data_dir": dir, "listen": "[::1]:0"})
	if third.front.url() == address {
		t.Error("the address did not change")
	}
	for _, s := range []*Sandbox{second, third} {
		if _, err := s.Status(t.Context(), placed.ID); err != nil {
			t.Errorf("at %s: %v", s.front.url(), err)
		}
	}
	unloadSecond()
	if conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://")); err == nil {
		conn.Close()
		t.Error("the old address is still served")
	}
	unloadThird()
	if n, _ := pool.References(serviceKey{dir}); n != 0 {
		t.Errorf("%d references left", n)
	}

	// Restart.
	fourth, unloadFourth := mustLoad(t, map[string]any{"data_dir": dir})
	defer unloadFourth()
	if got := fourth.Describe().Account; got != account {
		t.Errorf("account changed from %s to %s", account, got)
	}
	if ids, err := fourth.Find(t.Context(), vendors.Lookup{Reference: "1"}); err != nil || len(ids) != 1 || ids[0] != placed.ID {
		t.Errorf("after restart found %v, %v", ids, err)
	}
	if n := len(fourth.service.ca.Charges()); n != 1 {
		t.Errorf("%d charges", n)
	}
}

// inPool returns the service in the pool.
func inPool(t *testing.T, dir string) *service {
	t.Helper()
	var found *service
	pool.Range(func(key, value any) bool {
		if key == (serviceKey{dir}) {
			found = value.(*service)
		}
		return true
	})
	if found == nil {
		t.Fatal("no service in the pool")
	}
	return found
}

func TestAccountFollowsTheDirectory(t *testing.T) {
	one, unloadOne := mustLoad(t, map[string]any{"data_dir": t.TempDir()})
	defer unloadOne()
	two, unloadTwo := mustLoad(t, map[string]any{"data_dir": t.TempDir()})
	defer unloadTwo()
	if one.Describe().Account == two.Describe().Account {
		t.Error("two CAs have the same account")
	}
}

func TestBadConfigLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"listen": "0.0.0.0:0"}, "not a loopback address"},
		{map[string]any{"listen": ":0"}, "not a loopback address"},
		{map[string]any{"listen": "localhost:0"}, "not a loopback address"},
		{map[string]any{"listen": "nonsense"}, "listen: "},
		{map[string]any{"listen": taken.Addr().String()}, "listen: "},
		{map[string]any{"data_dir": file}, "starting sandbox"},
		{map[string]any{"data_dir": "{env.SANDBOX_TEST_UNSET}"}, "data_dir: placeholder {env.SANDBOX_TEST_UNSET}"},
		{map[string]any{"year": "-1h"}, "must not be negative"},
	} {
		if _, ok := tt.config["data_dir"]; !ok {
			tt.config["data_dir"] = t.TempDir()
		}
		_, unload, err := load(t, tt.config)
		unload()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.config, err, tt.want)
		}
	}
	pool.Range(func(key, _ any) bool { t.Errorf("left in the pool: %v", key); return true })
}

func TestUnmarshalCaddyfile(t *testing.T) {
	var s Sandbox
	err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(`sandbox {
		listen 127.0.0.1:7000
		data_dir /tmp/x
		lifetime 2h
		year 1d
		delay 3s
		http_port 8080
		https_port 8443
		balance 500
	}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"listen":"127.0.0.1:7000","data_dir":"/tmp/x","lifetime":7200000000000,"year":86400000000000,` +
		`"delay":3000000000,"http_port":8080,"https_port":8443,"balance":500}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"sandbox x", "sandbox {\n token x\n}", "sandbox {\n balance 0\n}"} {
		if err := new(Sandbox).UnmarshalCaddyfile(caddyfile.NewTestDispenser(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
