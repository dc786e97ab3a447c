package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxSkew is how far in the future the NotBefore of a certificate may be, to allow for clocks
// that disagree, as ledger.ClockSkew does. CAs usually backdate by an hour or more, but not all of
// them do, and a server whose clock is slow has no other certificate to serve.
const maxSkew = time.Hour

// errWrongCertificate says that the vendor delivered something that must not be
// served. The order is good; the answer is not.
var errWrongCertificate = errors.New("the delivered certificate cannot be used")

// chain is a certificate with its intermediates, leaf first, without the root.
type chain []*x509.Certificate

func (c chain) leaf() *x509.Certificate { return c[0] }

// pem encodes the chain as servers expect it.
func (c chain) pem() []byte {
	var buf bytes.Buffer
	for _, cert := range c {
		// Writing to a bytes.Buffer cannot fail, and the block has no headers.
		_ = pem.Encode(&buf, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return buf.Bytes()
}

// buildChain finds the leaf for the public key among the delivered certificates,
// whatever their order, and links it to the last intermediate that was delivered.
// Roots and strangers are left out. A nil key stands for any.
func buildChain(delivered [][]byte, publicKey any) (chain, error) {
	if len(delivered) == 0 {
		return nil, fmt.Errorf("%w: nothing was delivered", errWrongCertificate)
	}
	wantKey := ""
	if publicKey != nil {
		var err error
		if wantKey, err = keyID(publicKey); err != nil {
			return nil, err
		}
	}
	var certs []*x509.Certificate
	var leaf *x509.Certificate
	for i, der := range delivered {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: parsing certificate %d of %d: %w", errWrongCertificate, i+1, len(delivered), err)
		}
		certs = append(certs, cert)
		key, err := keyID(cert.PublicKey)
		if err == nil && (key == wantKey || wantKey == "") && !cert.IsCA {
			// A vendor may send old and new side by side; the newer one counts.
			if leaf == nil || cert.NotBefore.After(leaf.NotBefore) {
				leaf = cert
			}
		}
	}
	if leaf == nil {
		return nil, fmt.Errorf("%w: none of the %d delivered certificates is for our key", errWrongCertificate, len(certs))
	}
	out := chain{leaf}
	for len(out) <= len(certs) {
		last := out[len(out)-1]
		next := issuerOf(last, certs)
		if next == nil {
			break
		}
		if isSelfSigned(next) {
			return out, requireIntermediate(out)
		}
		if slices.ContainsFunc(out, next.Equal) {
			break
		}
		out = append(out, next)
	}
	return out, requireIntermediate(out)
}

// requireIntermediate refuses a lone leaf: public CAs issue from intermediates,
// and clients cannot be relied on to fetch a missing one.
func requireIntermediate(c chain) error {
	if len(c) == 1 {
		return fmt.Errorf("%w: the intermediate certificate %q is missing", errWrongCertificate, c.leaf().Issuer.String())
	}
	return nil
}

func issuerOf(cert *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, candidate := range among {
		if candidate.Equal(cert) || !candidate.IsCA || !bytes.Equal(candidate.RawSubject, cert.RawIssuer) {
			continue
		}
		if cert.CheckSignatureFrom(candidate) == nil {
			return candidate
		}
	}
	return nil
}

func isSelfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(cert) == nil
}

// checkCertificate judges a chain before anyone may serve it. oldSerial is the serial
// number of the certificate that it is to replace; it may be empty.
func checkCertificate(c chain, names []string, oldSerial string, now time.Time) error {
	leaf := c.leaf()
	for _, name := range names {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("%w: it is not for %s but for %s", errWrongCertificate, name, strings.Join(leaf.DNSNames, ", "))
		}
	}
	if serialOf(leaf) == oldSerial {
		return fmt.Errorf("%w: it is the old one again (serial %s)", errWrongCertificate, oldSerial)
	}
	for _, cert := range c {
		if !now.Before(cert.NotAfter) {
			return fmt.Errorf("%w: %q expired at %s", errWrongCertificate, cert.Subject.String(), cert.NotAfter.Format(time.RFC3339))
		}
		if cert.NotBefore.After(now.Add(maxSkew)) {
			return fmt.Errorf("%w: %q is valid only from %s; is the clock right?", errWrongCertificate, cert.Subject.String(), cert.NotBefore.Format(time.RFC3339))
		}
	}
	usable := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	if !usable {
		return fmt.Errorf("%w: it is not meant for servers", errWrongCertificate)
	}
	return nil
}

func serialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// firstName is the name by which certmagic will know the certificate: the common
// name if there is one, else the first DNS name.
func firstName(leaf *x509.Certificate) string {
	if leaf.Subject.CommonName != "" {
		return strings.ToLower(leaf.Subject.CommonName)
	}
	if len(leaf.DNSNames) > 0 {
		return strings.ToLower(leaf.DNSNames[0])
	}
	return ""
}
