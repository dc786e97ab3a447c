package issuer

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/bundle"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// purchased is a certificate that was bought elsewhere, with all that is needed to serve it.
type purchased struct {
	chain         chain
	key           crypto.Signer
	file, keyFile string
	notes         []string // what was left out
	warnings      []string
}

// errUnfit says that a certificate or key that was read from files cannot be served.
var errUnfit = errors.New("it cannot be served")

// choose finds the certificate among what was read from files, with its key and its
// intermediates, and judges it before anyone may serve it.
func choose(read *bundle.Contents, now time.Time) (*purchased, error) {
	p := &purchased{notes: slices.Clone(read.Notes)}
	leaf, key, err := choosePair(read, now)
	if err != nil {
		return nil, err
	}
	p.key, p.file, p.keyFile = key.Signer, leaf.File, key.File
	if err := checkLeaf(leaf, now); err != nil {
		return nil, err
	}
	if p.warnings, err = checkKey(key); err != nil {
		return nil, err
	}
	if p.chain, err = chooseChain(leaf, read, now); err != nil {
		return nil, err
	}
	for _, cert := range read.Certificates {
		switch {
		case slices.ContainsFunc(p.chain, cert.Equal):
		case isSelfSigned(cert.Certificate) && issues(cert.Certificate, p.chain):
			p.notes = append(p.notes, fmt.Sprintf("%s: the root %q is left out; clients have their own", cert.File, nameOf(cert.Certificate)))
		default:
			p.notes = append(p.notes, fmt.Sprintf("%s: the certificate %q does not belong to it and is left out", cert.File, nameOf(cert.Certificate)))
		}
	}
	for _, other := range read.Keys {
		if !isKeyOf(leaf.Certificate, other) {
			p.notes = append(p.notes, fmt.Sprintf("%s: the private key in it, %s, fits no certificate and is left out", other.File, keyKind(other.Public())))
		}
	}
	pool := x509.NewCertPool()
	for _, cert := range p.chain[1:] {
		pool.AddCert(cert)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Intermediates: pool, CurrentTime: now}); err != nil {
		p.warnings = append(p.warnings, fmt.Sprintf("the chain, which ends with %q, leads to none of the CAs that this machine trusts (%v); "+
			"if an intermediate certificate is missing, give it with --chain", nameOf(p.chain[len(p.chain)-1]), err))
	}
	return p, nil
}

// choosePair finds a certificate and its private key. Of several, such as last year's beside
// this year's, it takes the one that has not expired and lasts longest.
func choosePair(read *bundle.Contents, now time.Time) (leaf bundle.Certificate, key bundle.Key, err error) {
	var leaves []bundle.Certificate
	for _, cert := range read.Certificates {
		if !cert.IsCA {
			leaves = append(leaves, cert)
		}
	}
	switch {
	case len(read.Certificates) == 0:
		return leaf, key, errors.New("there is no certificate in the files; give its file with --cert")
	case len(leaves) == 0:
		return leaf, key, fmt.Errorf("there is no certificate of a server in the files, only those of CAs, such as %q in %s; give its file with --cert",
			nameOf(read.Certificates[0].Certificate), read.Certificates[0].File)
	case len(read.Keys) == 0:
		return leaf, key, fmt.Errorf("there is no private key in the files that would fit the certificate for %s in %s; give its file with --key",
			namesIn(leaves[0].Certificate), leaves[0].File)
	}
	expired := func(cert bundle.Certificate) int {
		if now.Before(cert.NotAfter) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(leaves, func(a, b bundle.Certificate) int {
		return cmp.Or(cmp.Compare(expired(a), expired(b)), b.NotAfter.Compare(a.NotAfter))
	})
	for _, leaf := range leaves {
		for _, key := range read.Keys {
			if isKeyOf(leaf.Certificate, key) {
				return leaf, key, nil
			}
		}
	}
	return leaf, key, fmt.Errorf("the private key in %s (%s) does not fit the certificate for %s in %s, which is for another key (%s)",
		read.Keys[0].File, keyKind(read.Keys[0].Public()), namesIn(leaves[0].Certificate), leaves[0].File, keyKind(leaves[0].PublicKey))
}

// checkLeaf judges a certificate by itself.
func checkLeaf(leaf bundle.Certificate, now time.Time) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("the certificate for %s in %s %s: %w", namesIn(leaf.Certificate), leaf.File, fmt.Sprintf(format, args...), errUnfit)
	}
	server := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	switch {
	case !now.Before(leaf.NotAfter):
		return fail("has expired at %s", leaf.NotAfter.Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(maxSkew)):
		return fail("is valid only from %s; is the clock right?", leaf.NotBefore.Format(time.RFC3339))
	case len(leaf.DNSNames) == 0:
		return fail("has no names of hosts but its common name, which clients do not look at")
	case !server:
		return fail("is not meant for servers")
	}
	return nil
}

// minRSA is the smallest modulus, in bits, that the CA/Browser Forum allows for RSA keys
// (Baseline Requirements, 6.1.5).
const minRSA = 2048

// checkKey judges a private key. warnings tell what not all clients accept.
func checkKey(key bundle.Key) (warnings []string, err error) {
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() < minRSA {
			return nil, fmt.Errorf("the private key in %s is weak: RSA of %d bits, of which at least %d are needed: %w", key.File, public.N.BitLen(), minRSA, errUnfit)
		}
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P224() {
			return nil, fmt.Errorf("the private key in %s is on the curve P-224, which TLS does not have: %w", key.File, errUnfit)
		}
	case ed25519.PublicKey:
		warnings = append(warnings, "browsers do not take certificates for Ed25519 keys")
	}
	return warnings, nil
}

// chooseChain links the certificate to its intermediates. A certificate that a root has issued
// needs none.
func chooseChain(leaf bundle.Certificate, read *bundle.Contents, now time.Time) (chain, error) {
	delivered := [][]byte{leaf.Raw}
	var late [][]byte // expired, and so last: a CA may have a newer certificate for the same key
	for _, cert := range read.Certificates {
		switch {
		case !cert.IsCA:
		case now.Before(cert.NotAfter):
			delivered = append(delivered, cert.Raw)
		default:
			late = append(late, cert.Raw)
		}
	}
	got, err := buildChain(append(delivered, late...), leaf.PublicKey)
	if len(got) == 1 && slices.ContainsFunc(read.Certificates, func(cert bundle.Certificate) bool {
		return isSelfSigned(cert.Certificate) && issues(cert.Certificate, got)
	}) {
		return got, nil
	}
	if len(got) == 1 {
		return nil, fmt.Errorf("the certificate %q, which has issued the one for %s in %s, is in none of the files; clients need it: "+
			"give it with --chain. Vendors call it intermediate, CA certificate or CA bundle: %w",
			leaf.Issuer.String(), namesIn(leaf.Certificate), leaf.File, errUnfit)
	}
	if err != nil {
		return nil, err
	}
	for _, cert := range got[1:] {
		if !now.Before(cert.NotAfter) {
			return nil, fmt.Errorf("the intermediate certificate %q has expired at %s; get a newer one from the vendor and give it with --chain: %w",
				nameOf(cert), cert.NotAfter.Format(time.RFC3339), errUnfit)
		}
	}
	return got, nil
}

// issues reports whether a CA has issued one of the certificates.
func issues(ca *x509.Certificate, certs chain) bool {
	return slices.ContainsFunc(certs, func(cert *x509.Certificate) bool { return issuerOf(cert, chain{ca}) != nil })
}

func isKeyOf(cert *x509.Certificate, key bundle.Key) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// keyKind names the kind of a key, for people.
func keyKind(public crypto.PublicKey) string {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA, %d bits", public.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA, " + public.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", public)
}

// nameOf names a certificate, for people.
func nameOf(cert *x509.Certificate) string {
	return operator.Word(cmp.Or(cert.Subject.CommonName, cert.Subject.String()))
}

// namesIn returns the names of a certificate in one line; of many, only the first.
func namesIn(cert *x509.Certificate) string {
	const most = 10
	names := cert.DNSNames
	if len(names) == 0 {
		return nameOf(cert)
	}
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
