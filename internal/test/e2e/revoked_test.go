package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestRevokedCertificate: a certificate that the CA revokes is replaced while Caddy runs,
// free of charge and with another key, and no handshake fails meanwhile. An order that
// the vendor cancels is flagged for a person, and its certificate is still served.
func TestRevokedCertificate(t *testing.T) {
	const name = "shop.example.com"
	for _, seller := range sellers {
		t.Run(seller.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := w.start(w.localGlobals(w.node) + site(name, w.issuerOf(seller, "watch 2s")))
			first := s.served(name)
			if n, err := w.ca.RevokeAll(); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			w.await("another certificate", func() error {
				now, err := w.handshake(s.node, name, w.ca.Roots())
				if err != nil {
					return finalError{fmt.Errorf("a handshake failed: %w", errors.Join(err, s.alive()))}
				}
				if w.ca.Revoked(now.SerialNumber) {
					return errors.New("the revoked one is served")
				}
				return nil
			})
			if bytes.Equal(s.served(name).RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
				t.Error("it is for the key of the revoked one")
			}
			w.charges(1)
			w.nothingForgotten()
			if n, err := w.ca.EndAll(hostile.StatusCancelled); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			w.await("the order to be flagged", func() error {
				for _, e := range w.entries() {
					if e.State == ledger.Open && e.Flag != nil && e.Flag.Ended {
						return nil
					}
				}
				return errors.Join(errors.New("no entry is flagged"), s.alive())
			})
			s.served(name)
			w.charges(1)
			w.await("the log to say what to do", func() error {
				if len(s.log.with("caddy commercial resolve "+name+" --none")) == 0 {
					return errors.New("no line says it")
				}
				return s.alive()
			})
		})
	}
}
