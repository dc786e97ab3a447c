package issuer

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// An order may take days, and a call of Issue must not: certmagic has a bounded
// number of jobs, and the site may have another issuer to fall back on. When a
// call gives up waiting, a watch goes on with the very same CSR. certmagic has
// forgotten its key by then and would ask with a new one, for which the order would
// have to be reissued, which could take as long again. So it is the watch that
// stores the certificate, with the key it was made for.

// watches are the orders of one config that are waited for in the background, by
// name.
type watches struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	active map[string]*StillPendingError
	closed bool
}

func newWatches(ctx context.Context) *watches {
	ctx, cancel := context.WithCancel(ctx)
	return &watches{ctx: ctx, cancel: cancel, active: make(map[string]*StillPendingError)}
}

// of returns what the watch for the name waits for, or nil.
func (w *watches) of(name string) *StillPendingError {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active[name]
}

// start runs a watch for the name, unless there is one.
func (w *watches) start(name string, pending *StillPendingError, run func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.active[name] != nil {
		return
	}
	w.active[name] = pending
	w.wg.Go(func() {
		run(w.ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.active, name)
	})
}

// run runs what starts watches.
func (w *watches) run(f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.wg.Go(func() { f(w.ctx) })
	}
}

// close ends all watches. Their orders stay as they are.
func (w *watches) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// watchRetry bounds the waits of a watch between attempts that failed.
const (
	watchRetryMin = time.Minute
	watchRetryMax = 6 * time.Hour
)

// finish waits for the job's certificate for as long as it takes, and hands it to
// deliver. It ends early when only a person can help, or with ctx.
func (f *flow) finish(ctx context.Context, j job, deliver func(chain, *Record) error) {
	patient := *f
	patient.rules.maxWait = 0
	retry := poll.Schedule{Min: watchRetryMin, Max: watchRetryMax}
	for {
		got, rec, err := patient.obtain(ctx, j)
		if err == nil {
			err = deliver(got, rec)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if _, final := errors.AsType[certmagic.ErrNoRetry](err); final {
			j.logger.Error("waiting for an order in the background failed for good", zap.Error(err))
			return
		}
		wait := retry.Next()
		j.logger.Error("waiting for an order in the background failed; trying again", zap.Error(err), zap.Duration("wait", wait))
		if poll.Wait(ctx, wait) != nil {
			return
		}
	}
}

// store puts a certificate where certmagic keeps its own, and into its cache.
func store(ctx context.Context, magic *certmagic.Config, issuerKey, name string, key crypto.PrivateKey, cert *certmagic.IssuedCertificate) error {
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the private key of %s: %w", name, err)
	}
	meta, err := json.Marshal(cert.Metadata)
	if err != nil {
		return fmt.Errorf("encoding the metadata of %s: %w", name, err)
	}
	resource, err := json.MarshalIndent(certmagic.CertificateResource{SANs: []string{name}, IssuerData: meta}, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the metadata of %s: %w", name, err)
	}
	for _, file := range []struct {
		key   string
		value []byte
	}{
		{certmagic.StorageKeys.SitePrivateKey(issuerKey, name), keyPEM},
		{certmagic.StorageKeys.SiteCert(issuerKey, name), cert.Certificate},
		{certmagic.StorageKeys.SiteMeta(issuerKey, name), resource},
	} {
		if err := magic.Storage.Store(ctx, file.key, file.value); err != nil {
			return fmt.Errorf("storing the certificate of %s: %w", name, err)
		}
	}
	if _, err := magic.CacheManagedCertificate(ctx, name); err != nil {
		return fmt.Errorf("loading the certificate of %s: %w", name, err)
	}
	return nil
}

// lasting serves the certificate that lasts longest of several for a name. certmagic
// serves the one that was loaded first, which here is that of the next issuer, with
// which the site made do while the order was pending. The beginnings of certificates
// tell nothing: some CAs set them to an hour ago, others to midnight.
type lasting struct{}

// SelectCertificate implements certmagic.CertificateSelector.
func (lasting) SelectCertificate(hello *tls.ClientHelloInfo, choices []certmagic.Certificate) (certmagic.Certificate, error) {
	now := time.Now()
	var best certmagic.Certificate
	for _, choice := range choices {
		// certmagic offers all it has when nothing matches; what does not fit the
		// name is not supported either.
		if choice.Leaf == nil || hello.SupportsCertificate(&choice.Certificate) != nil {
			continue
		}
		begun := now.After(choice.Leaf.NotBefore)
		if best.Leaf == nil || begun && choice.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = choice
		}
	}
	if best.Leaf == nil {
		return certmagic.Certificate{}, errors.New("no certificate fits the name and the client")
	}
	return best, nil
}

// preferOwn makes a config with several issuers load, from storage, the certificate
// of the first of them that has a usable one, and serve, from memory, the one that
// lasts longest. Else certmagic would go by the beginnings of certificates, and the
// stopgap of the next issuer, which renews it often, would win.
func preferOwn(cfg *certmagic.Config) {
	if len(cfg.Issuers) < 2 {
		return
	}
	cfg.LoadFirstUsableCert = true
	if cfg.OnDemand == nil && cfg.CertSelection == nil {
		cfg.CertSelection = lasting{}
	}
}

// Interface guard
var _ certmagic.CertificateSelector = lasting{}
