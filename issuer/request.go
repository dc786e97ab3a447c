package issuer

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// requestFor makes the CSR for an order or reissue: for the key that certmagic wants a
// certificate for, or else for a new one. The key is PEM, or nil if it is not known.
func (f *flow) requestFor(j *errand, names []string) (key, der []byte, err error) {
	if f.about.NeedsCommonName && len(names[0]) > maxCommonName {
		return nil, nil, noRetry(fmt.Errorf("%s has %d bytes, but %s needs it as common name, which holds at most %d (RFC 5280, ub-common-name)",
			names[0], len(names[0]), f.about.Name, maxCommonName))
	}
	if j.want == nil {
		signer, err := f.site.NewKey()
		if err != nil {
			return nil, nil, fmt.Errorf("making a private key for %s: %w", j.name, err)
		}
		if key, err = encodeKey(signer); err != nil {
			return nil, nil, err
		}
		der, err = orderCSR(names, nil, signer)
		return key, der, err
	}
	if j.want.pem != nil {
		signer, err := certmagic.PEMDecodePrivateKey(j.want.pem)
		if err != nil {
			return nil, nil, fmt.Errorf("decoding the private key for %s: %w", j.name, err)
		}
		der, err = orderCSR(names, j.want.extras, signer)
		return j.want.pem, der, err
	}
	csr, err := x509.ParseCertificateRequest(j.want.csr)
	if err != nil {
		return nil, nil, err
	}
	fits := slices.Equal(names, csr.DNSNames) && (!f.about.NeedsCommonName || csr.Subject.CommonName == names[0])
	if !fits {
		return nil, nil, noRetry(fmt.Errorf("the CSR for %s has no common name and its private key is not at hand to sign one that has; "+
			"%s requires it", names[0], f.about.Name))
	}
	return nil, csr.Raw, nil
}

// maxCommonName is the upper bound of a common name, RFC 5280 appendix A.1.
const maxCommonName = 64

// keepKey stores the private key of a request before the request is sent.
func (f *flow) keepKey(ctx context.Context, key []byte, reference string) error {
	if key == nil {
		return nil
	}
	return f.ledger.KeepKey(ctx, reference, key)
}

// request is what is sent to the vendor. What was agreed is taken from the entry, not from the
// configuration.
func (f *flow) request(e *ledger.Entry) vendors.OrderRequest {
	cfg := f.order
	cfg.Product, cfg.Term, cfg.Method = e.Product, e.Term, e.Method
	return vendors.OrderRequest{
		OrderConfig: cfg,
		Reference:   e.Attempt.Reference,
		Names:       e.Names,
		CSR:         e.Attempt.CSR,
		Unique:      e.Attempt.Unique,
		PreparedID:  e.Attempt.PreparedID,
	}
}

func (f *flow) newReference() string { return f.ledger.NewReference() }

// newUnique makes a unique value: at most 20 letters and digits (Sectigo, "request
// token").
func (f *flow) newUnique() string { return f.randomHex(10) }

func (f *flow) randomHex(n int) string {
	b := make([]byte, n)
	f.ledger.Fill(b)
	return hex.EncodeToString(b)
}

// jitter returns a number from 0 to below 1.
func (f *flow) jitter() float64 {
	var b [2]byte
	f.ledger.Fill(b[:])
	return float64(binary.BigEndian.Uint16(b[:])) / (1 << 16)
}
