package e2e

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestSellersOverHTTPS buys from each vendor over HTTPS, from a server that speaks HTTP/2, as those of
// the vendors do.
func TestSellersOverHTTPS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SSL_CERT_FILE is for Linux")
	}
	const name = "shop.example.com"
	for _, seller := range sellers {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			var mu sync.Mutex
			calls := make(map[string]int)
			front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				mu.Lock()
				calls[r.Proto]++
				mu.Unlock()
				w.ca.ServeHTTP(rw, r)
			}))
			front.EnableHTTP2 = true
			front.Config.ErrorLog = log.New(io.Discard, "", 0)
			front.StartTLS()
			t.Cleanup(front.Close)
			w.roots = filepath.Join(w.dir, "roots.pem")
			root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
			if err := os.WriteFile(w.roots, root, 0o600); err != nil {
				t.Fatal(err)
			}
			issuer := strings.Replace(w.issuerOf(seller, ""), "endpoint "+w.hooks, "endpoint "+front.URL, 1)
			s := w.start(w.localGlobals(w.node) + site(name, issuer))
			s.served(name)
			w.charges(1)
			if lost := s.find("the answer to a paid order was lost"); len(lost) > 0 {
				t.Errorf("answers were lost: %v", lost)
			}
			s.stop()
			mu.Lock()
			defer mu.Unlock()
			// What is paid for is sent over HTTP/1.1; see BeforeSending in the package vendors.
			if calls["HTTP/1.1"] == 0 || calls["HTTP/2.0"] == 0 {
				t.Errorf("calls by protocol: %v", calls)
			}
		})
	}
}
