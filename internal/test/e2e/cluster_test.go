package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// balancer is what the name's HTTP port leads to in a cluster.
type balancer struct {
	mu    sync.Mutex
	nodes []node
	next  int
	dice  bool           // whether the next one is random
	found map[string]int // validation files delivered, by node
}

func newBalancer(w *world, nodes ...node) (*balancer, *httptest.Server) {
	b := &balancer{nodes: nodes, found: make(map[string]int)}
	srv := httptest.NewServer(b)
	w.t.Cleanup(srv.Close)
	return b, srv
}

func (b *balancer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	n := b.nodes[b.next%len(b.nodes)]
	b.next++
	if b.dice {
		b.next = rand.IntN(len(b.nodes))
	}
	b.mu.Unlock()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", n.http)})
			pr.Out.Host = pr.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusOK && strings.HasPrefix(r.URL.Path, "/.well-known/pki-validation/") {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.found[n.name]++
			}
			return nil
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{DisableKeepAlives: true},
	}
	proxy.ServeHTTP(rw, r)
}

func (b *balancer) only(n node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = []node{n}
}

// newCluster is a world with places for two servers behind one balancer.
func newCluster(t *testing.T, change func(*hostile.Config)) (*world, node, node, *balancer) {
	w := newWorld(t, change)
	a, b := w.node, w.newNode("second")
	return w, a, b, w.balance(a, b)
}

// balance leads the CA to these nodes.
func (w *world) balance(nodes ...node) *balancer {
	w.t.Helper()
	lb, front := newBalancer(w, nodes...)
	u, err := url.Parse(front.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscan(u.Port(), &port); err != nil {
		w.t.Fatal(err)
	}
	w.update(func(c *hostile.Config) { c.HTTPPort = port })
	return lb
}

// TestCluster: two servers on one storage buy once, and either of them serves the
// file that one of them published.
func TestCluster(t *testing.T) {
	t.Parallel()
	w, a, b, lb := newCluster(t, func(c *hostile.Config) { c.IssueDelay = time.Second })
	const name = "shop.localhost"
	first, second := w.startAt(a, w.simple(a, name)), w.startAt(b, w.simple(b, name))
	leaf := first.served(name)
	if !second.served(name).Equal(leaf) {
		t.Error("the servers show different certificates")
	}
	w.charges(1)
	w.nothingForgotten()
	lb.mu.Lock()
	defer lb.mu.Unlock()
	if lb.found[a.name] == 0 || lb.found[b.name] == 0 {
		t.Errorf("validation files served by each server: %v; want some by both", lb.found)
	}
}

// TestClusterSurvivor: when the server that ordered dies, another one finishes.
func TestClusterSurvivor(t *testing.T) {
	t.Parallel()
	w, a, b, lb := newCluster(t, neverIssue)
	const name = "shop.localhost"
	lb.only(a)
	buyer := w.startAt(a, w.simple(a, name))
	buyer.awaitLog("order placed")
	survivor := w.startAt(b, w.simple(b, name))
	survivor.awaitLog("acquiring lock")
	if orders := w.ca.Orders(); len(orders) != 1 || orders[0].Status != hostile.StatusPending {
		t.Fatalf("the order is not pending: %+v", orders)
	}
	buyer.kill()
	lb.only(b)
	w.issueNow()
	survivor.served(name)
	w.charges(1)
	w.nothingForgotten()
	if len(survivor.find("order placed")) != 0 {
		t.Error("the survivor placed an order")
	}
}

// TestClusterFallback: servers that made do with another issuer's certificate all switch
// over, whenever they check, and the order is not reissued for any of them.
func TestClusterFallback(t *testing.T) {
	t.Parallel()
	w, a, b, _ := newCluster(t, neverIssue)
	const name = "shop.localhost"
	start := func(n node) *server {
		return w.startAt(n, w.localGlobals(n)+site(name, w.issuer("max_wait 1s")+"issuer internal\n"))
	}
	first := start(a)
	first.awaitStopgap(name)
	second := start(b)
	second.awaitStopgap(name)
	w.issueNow()
	leaf := first.served(name)
	if !second.served(name).Equal(leaf) {
		t.Error("the servers show different certificates")
	}
	w.charges(1)
	w.nothingForgotten()
	if n := w.ca.Calls("replace"); n != 0 {
		t.Errorf("the order was reissued %d times; one certificate is enough for all", n)
	}
}
