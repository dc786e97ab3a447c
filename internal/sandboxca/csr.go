package sandboxca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Limits of Sectigo for a certificate request
// (https://docs.sectigo.com/sps/auto-apply-ssl/additional-request-structures).
const (
	minRSABits       = 2048
	maxRSABits       = 8192
	maxCommonNameLen = 64
)

// ParseCSR reads a CSR in PEM and checks everything that does not depend on the
// order: encoding, signature, key, and that there is a common name.
func ParseCSR(text string) (*x509.CertificateRequest, error) {
	csr, err := ParseBareCSR(text)
	if err != nil {
		return nil, err
	}
	switch n := len(csr.Subject.CommonName); {
	case n == 0:
		return nil, errors.New("csr has no common name")
	case n > maxCommonNameLen:
		return nil, fmt.Errorf("csr has a common name of %d characters, allowed are %d", n, maxCommonNameLen)
	}
	return csr, nil
}

// ParseBareCSR is ParseCSR for sellers that take no name from the CSR.
func ParseBareCSR(text string) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("csr is not PEM")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, fmt.Errorf("csr is a PEM block of type %q", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("csr has something behind the PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, errors.New("csr cannot be decoded")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errors.New("csr has an invalid signature")
	}
	switch key := csr.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("csr has an RSA key of %d bits, allowed are %d to %d", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return nil, fmt.Errorf("csr has a key on the unsupported curve %s", key.Params().Name)
		}
	default:
		return nil, fmt.Errorf("csr has an unsupported key of type %s", csr.PublicKeyAlgorithm)
	}
	return csr, nil
}

// CheckCSRNames checks a CSR against the names ordered with it.
func CheckCSRNames(csr *x509.CertificateRequest, names []string) error {
	if cn := strings.ToLower(csr.Subject.CommonName); cn != names[0] && !sameIP(cn, names[0]) {
		return fmt.Errorf("the common name of the csr (%s) is not the first domain (%s)", cn, names[0])
	}
	sans := slices.Clone(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		sans = append(sans, ip.String())
	}
	for _, san := range sans {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, san) || sameIP(n, san) }) {
			return fmt.Errorf("the csr names %s, which is not ordered", san)
		}
	}
	return nil
}

func sameIP(a, b string) bool {
	ip := net.ParseIP(a)
	return ip != nil && ip.Equal(net.ParseIP(b))
}
