package issuer

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// A watch ends with its config and its process. Where no other issuer has served the
// name meanwhile, certmagic asks again at once. But where one has, certmagic is content
// with the stopgap until that is due for renewal, maybe for months. So is every other
// server on the storage.

// The bounds of the waits between looks for such names. The first wait lets the servers
// start, so that files can be fetched.
const (
	resumeMin = 3 * time.Second
	resumeMax = 30 * time.Minute
)

// resume looks for served names that another issuer's certificate keeps certmagic from
// asking for, until ctx ends. Where there is a bought one by now, from another server,
// it is loaded, and orders that nobody here waits for get a watch.
func (iss *Issuer) resume(ctx context.Context) {
	if iss.app.WaitStarted(ctx) != nil {
		return
	}
	schedule := poll.Schedule{Min: resumeMin, Max: resumeMax}
	for poll.Wait(ctx, schedule.Next()) == nil {
		iss.mu.Lock()
		magic, serving := iss.magic, iss.serving
		iss.mu.Unlock()
		if serving == nil || magic.OnDemand != nil || len(magic.Issuers) < 2 {
			return
		}
		f := iss.flow(magic, serving)
		records, err := f.ledger.all(ctx)
		if _, damaged := errors.AsType[*DamagedRecordError](err); err != nil && !damaged {
			iss.logger.Warn("looking for pending orders failed", zap.Error(err))
			continue
		}
		for _, rec := range records {
			for _, name := range rec.Names {
				if !iss.manages(name) || iss.watches.of(name) != nil || !iss.hasStopgap(ctx, magic, name) ||
					iss.loadStored(ctx, magic, rec, name) || !f.resumable(rec) {
					continue
				}
				if err := iss.resumeName(f, magic, rec, name); err != nil {
					iss.logger.Error("resuming an order failed", zap.String("identifier", name), zap.Error(err))
				}
			}
		}
	}
}

// manages reports whether the config gets certificates for the name from our issuers.
func (iss *Issuer) manages(name string) bool {
	ours, _ := iss.app.Managed(name)
	return ours
}

// resumable reports whether the record's order, which is or may be paid, has yet to
// give its certificate, or has given one that was lost. Nothing is bought by going on
// with it.
func (f *flow) resumable(rec *Record) bool {
	switch rec.State {
	case StateIntent, StatePending, StateReissuing:
		return true
	case StateIssued:
		return rec.Attempt != nil && time.Until(rec.Order.TermEnds) > f.margin()
	case StateNone, StateUncertain, StateDead:
	}
	return false
}

// hasStopgap reports whether another issuer's certificate for the name is stored.
func (iss *Issuer) hasStopgap(ctx context.Context, magic *certmagic.Config, name string) bool {
	for _, other := range magic.Issuers {
		if key := other.IssuerKey(); key != iss.IssuerKey() && magic.Storage.Exists(ctx, certmagic.StorageKeys.SiteCert(key, name)) {
			return true
		}
	}
	return false
}

// resumeName starts a watch for one name, with a new key in case that of the order is
// gone.
func (iss *Issuer) resumeName(f *flow, magic *certmagic.Config, rec *Record, name string) error {
	key, err := magic.KeySource.GenerateKey()
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return fmt.Errorf("signing a CSR: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return fmt.Errorf("parsing a CSR: %w", err)
	}
	id, err := publicID(csr.PublicKey)
	if err != nil {
		return err
	}
	pending := &StillPendingError{Vendor: f.about.Name, Detail: "left behind earlier"}
	if rec.Order != nil {
		pending.OrderID = rec.Order.ID
	}
	iss.watch(f, job{
		name: name, csr: csr, key: id, started: time.Now(),
		logger: iss.logger.With(zap.String("identifier", name), zap.String("vendor", f.about.Name)),
	}, rec, magic, pending)
	return nil
}

// lockWatch makes this the only server that waits for the name in the background. The
// others would each have the order reissued for a key of their own.
func (f *flow) lockWatch(ctx context.Context, name string) (unlock func(), err error) {
	lock := lockName(f.ledger.key(name) + ".watch")
	if err := f.ledger.storage.Lock(ctx, lock); err != nil {
		return nil, fmt.Errorf("locking the watch on %s: %w", name, err)
	}
	return func() {
		// A lock that stays behind expires by itself.
		_ = f.ledger.storage.Unlock(context.WithoutCancel(ctx), lock)
	}, nil
}

// loadStored serves the certificate that is stored for the name, if it is the latest of
// the order in force, and reports whether it did.
func (iss *Issuer) loadStored(ctx context.Context, magic *certmagic.Config, rec *Record, name string) bool {
	if rec.State != StateIssued {
		return false
	}
	data, err := magic.Storage.Load(ctx, certmagic.StorageKeys.SiteCert(iss.IssuerKey(), name))
	if err != nil {
		return false
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return false
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || serialOf(leaf) != rec.Order.Serial {
		return false
	}
	_, err = magic.CacheManagedCertificate(ctx, name)
	return err == nil
}
