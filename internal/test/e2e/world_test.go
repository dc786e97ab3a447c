package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// apiToken is the secret that no log and no file may show.
const apiToken = "e2e-token-that-nobody-may-see"

// patience is how long anything may take. It is only ever used up by a failure, or
// by a machine that is very busy with something else.
const patience = 2 * time.Minute

// world is one CA, one storage, and the servers that share them.
type world struct {
	faults  []func() // remove those of breaks
	t       *testing.T
	ca      *hostile.CA
	api     string // base URL of the sandbox's API
	hooks   string // URL that storages report to
	zerossl string // base URL of a stand-in for ZeroSSL's API, if there is one
	roots   string // file of the CAs that servers trust; empty: those of the system
	dir     string
	storage string
	node    node          // where the first, and usually only, server lives
	binary  string        // that servers run
	patient time.Duration // how long await waits

	// keep is the option of a server's storage. fetch copies its content into the
	// directory storage, unless it is there anyway.
	keep  func(n node) string
	fetch func()

	mu      sync.Mutex
	servers []*server
	onPoint func(point string)
	ask     func(name string) bool // of on-demand TLS
}

// node is the place of one server: its ports and its home directory.
type node struct {
	name               string
	http, https, admin int
	home               string
	clock              time.Duration // how far its wall clock is ahead, where the binary has such a clock
}

// newWorld makes a world with a CA that charges for every order it is asked for,
// even when the reference is one that it has seen.
func newWorld(t *testing.T, change func(*hostile.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), onPoint: func(string) {}, ask: func(string) bool { return true }}
	w.storage, w.binary, w.patient = filepath.Join(w.dir, "storage"), caddyBinary, patience
	w.keep = func(node) string { return fmt.Sprintf("e2e_points %s %s/point", w.storage, w.hooks) }
	w.fetch = func() {}
	w.node = w.newNode("caddy")
	cfg := hostile.Config{
		Core:   hostile.Core{Accounts: []hostile.Account{{Token: apiToken, Balance: 100_000_000}}, HTTPPort: w.node.http},
		Quirks: hostile.Quirks{LooseRefID: true},
	}
	if change != nil {
		change(&cfg)
	}
	ca, err := hostile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.ca = ca
	mux := http.NewServeMux()
	mux.Handle("/", ca)
	mux.HandleFunc("POST /point", func(_ http.ResponseWriter, r *http.Request) {
		w.point(r.FormValue("point") + " " + r.FormValue("key"))
	})
	mux.HandleFunc("GET /ask", func(rw http.ResponseWriter, r *http.Request) {
		if !w.ask(r.FormValue("domain")) {
			rw.WriteHeader(http.StatusForbidden)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		ca.Close()
		srv.CloseClientConnections()
		srv.Close()
	})
	w.api, w.hooks = srv.URL+"/ssl", srv.URL
	// Before the CA is closed: nothing may outlive the test, or escape its checks.
	t.Cleanup(w.end)
	return w
}

// point passes on that something is about to happen, or has happened.
func (w *world) point(point string) {
	w.mu.Lock()
	f := w.onPoint
	w.mu.Unlock()
	f(point)
}

func (w *world) end() {
	w.mu.Lock()
	servers := slices.Clone(w.servers)
	w.mu.Unlock()
	for _, s := range servers {
		s.kill()
	}
	for _, s := range servers {
		s.checkLog()
	}
	w.noTokenOnDisk()
	if !w.t.Failed() {
		return
	}
	for _, s := range servers {
		w.t.Logf("log of %s:\n%s", s.name, s.excerpt())
	}
	for _, o := range w.ca.Orders() {
		w.t.Logf("order at the CA: %s %s %s %v, reference %s", o.Kind, o.ID, o.Status, o.Names, o.RefID)
	}
}

func (w *world) noTokenOnDisk() {
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), apiToken) {
			w.t.Errorf("the API token is in %s", path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// newNode finds a place for another server.
func (w *world) newNode(name string) node {
	w.t.Helper()
	n := node{name: name, home: filepath.Join(w.dir, "home-"+name)}
	n.http, n.https, n.admin = freePort(w.t), freePort(w.t), freePort(w.t)
	if err := os.MkdirAll(n.home, 0o700); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// lastPort is the port handed out last. Ports come from below the range that systems use
// for outgoing connections, so a port stays free until the server that it is meant for
// listens.
var lastPort atomic.Int64

func init() { lastPort.Store(20_000 + int64(os.Getpid()%100)*100) }

func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := int(lastPort.Add(1))
		if port >= 32_768 {
			t.Fatal("no free ports are left")
		}
		ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			ln.Close()
			return port
		}
	}
}

// await waits until check returns nil.
func (w *world) await(what string, check func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), w.patient)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if final, ok := errors.AsType[finalError](err); ok {
			w.t.Fatalf("waiting for %s: %v", what, final)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// finalError is a reason to wait no longer.
type finalError struct{ error }

// neverIssue keeps orders pending, until issueNow.
func neverIssue(c *hostile.Config) { c.IssueDelay = 365 * 24 * time.Hour }

// issueNow ends neverIssue.
func (w *world) issueNow() { w.update(func(c *hostile.Config) { c.IssueDelay = 0 }) }

// update changes the CA. It may be called from any goroutine.
func (w *world) update(change func(*hostile.Config)) {
	if err := w.ca.Update(change); err != nil {
		w.t.Error(err)
	}
}

// charges fails if the CA has charged for another number of orders.
func (w *world) charges(want int) {
	w.t.Helper()
	if got := w.ca.Charges(); len(got) != want {
		w.t.Errorf("the CA charged %d times, want %d: %+v", len(got), want, got)
	}
	if n := w.ca.Calls("cancel") + w.ca.Calls("revoke"); n > 0 {
		w.t.Errorf("%d orders were cancelled or revoked", n)
	}
}

// entries reads the ledger from the storage's files, including those of terms that are
// over.
func (w *world) entries() []*ledger.Entry {
	w.t.Helper()
	w.fetch()
	var list []*ledger.Entry
	for _, folder := range []string{"entries", "past"} {
		files, err := filepath.Glob(filepath.Join(w.storage, "commercial", "*", "*", folder, "*.json"))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				w.t.Fatal(err)
			}
			e := new(ledger.Entry)
			if err := json.Unmarshal(data, e); err != nil {
				w.t.Fatalf("%s: %v", file, err)
			}
			list = append(list, e)
		}
	}
	return list
}

// nothingForgotten fails if there is a charge that the ledger knows nothing of, or if the
// private key of a request is left in storage when all certificates are where they
// belong. The key of an order that got lost before it was in the ledger stays for some
// hours.
func (w *world) nothingForgotten() {
	w.t.Helper()
	known := make(map[string]bool)
	for _, e := range w.entries() {
		known[e.Attempt.Reference], known[e.OrderID], known[e.RootID] = true, true, true
	}
	for _, charge := range w.ca.Charges() {
		// A reissue has another reference, and a vendor without references knows only its
		// own ID.
		if !known[charge.Reference] && !known[charge.OrderID] {
			w.t.Errorf("order %s with reference %s was paid for, and the ledger does not know it", charge.OrderID, charge.Reference)
		}
	}
	w.await("the private keys of requests to be removed", func() error {
		for _, kept := range w.keptKeys() {
			if known[strings.TrimSuffix(filepath.Base(kept), ".pem")] {
				return fmt.Errorf("there is %q", kept)
			}
		}
		return nil
	})
}

// keptKeys are the files of the private keys that are kept for requests under way.
func (w *world) keptKeys() []string {
	w.t.Helper()
	w.fetch()
	files, err := filepath.Glob(filepath.Join(w.storage, "commercial", "*", "*", "keys", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// fetchedWell fails unless the CA fetched files of name, and always got them.
func (w *world) fetchedWell(name string) {
	w.t.Helper()
	n := 0
	for _, f := range w.ca.Fetches() {
		if f.Status != http.StatusOK || f.Result != hostile.ResultOK {
			w.t.Errorf("the CA fetched %s: status %d, %s", f.URL, f.Status, f.Result)
		}
		if f.Host == name {
			n++
		}
	}
	if n == 0 {
		w.t.Errorf("the CA never fetched a file of %s", name)
	}
}

// account is the ledger's directory name of the only account.
func (w *world) account() string {
	u, err := url.Parse(w.api)
	if err != nil {
		w.t.Fatal(err)
	}
	return ledger.Escape(u.Host)
}

// localRoots is the CA of Caddy's own internal issuer in the storage.
func (w *world) localRoots() (*x509.CertPool, error) {
	return trusted(filepath.Join(w.storage, "pki", "authorities", "local", "root.crt"))
}

// trusted are the certificates in a file.
func trusted(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}
