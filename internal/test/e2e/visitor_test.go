package e2e

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// visitor makes one handshake after the other, and counts.
type visitor struct {
	mu     sync.Mutex
	made   int
	failed []error
	leaf   *x509.Certificate // the one that was shown last
	stop   func()
}

// maxVisits bounds the handshakes of one visitor.
const maxVisits = 5000

// visit sends a visitor who trusts only roots to a server again and again, until stop is
// called.
func (w *world) visit(n node, name string, roots *x509.CertPool) *visitor {
	ctx, cancel := context.WithCancel(w.t.Context())
	v := new(visitor)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range maxVisits {
			leaf, err := w.handshake(n, name, roots)
			if errors.Is(err, syscall.ECONNRESET) {
				// With each config, Caddy opens a socket of its own for a port. Connections
				// that wait for the old one to accept them are reset when that is closed.
				leaf, err = w.handshake(n, name, roots)
			}
			if ctx.Err() == nil {
				v.note(leaf, err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	v.stop = func() {
		cancel()
		group.Wait()
	}
	return v
}

func (v *visitor) note(leaf *x509.Certificate, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.made++
	if err != nil {
		v.failed = append(v.failed, err)
		return
	}
	v.leaf = leaf
}

// sees returns an error until the visitor is shown the certificate.
func (v *visitor) sees(leaf *x509.Certificate) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !leaf.Equal(v.leaf) {
		return errors.New("the visitor is shown another certificate")
	}
	return nil
}

// welcome fails if the visitor was ever refused. First it waits for some visits.
func (w *world) welcome(title string, v *visitor) {
	w.t.Helper()
	w.await("visits", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.made < 10 {
			return fmt.Errorf("%d so far", v.made)
		}
		return nil
	})
	v.stop()
	if len(v.failed) > 0 {
		w.t.Errorf("%s: %d of %d handshakes failed, the first with: %v", title, len(v.failed), v.made, v.failed[0])
	}
}
