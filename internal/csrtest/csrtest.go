// Package csrtest makes certificate requests for tests, and has one whose proofs are known.
package csrtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"testing"
)

// Worked is a request for shop.example.com. The values that tests derive from it were
// computed with openssl.
const Worked = `-----BEGIN CERTIFICATE REQUEST-----
MIIBBTCBqwIBADAbMRkwFwYDVQQDDBBzaG9wLmV4YW1wbGUuY29tMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE2HlahTJJHSlpHEkpuY1Ndxq9XhlZFw6qLJyze2h8
PqKXuA9JWnD51PhRQptsMbaouv58MPALfL7+87GA0tDkeqAuMCwGCSqGSIb3DQEJ
DjEfMB0wGwYDVR0RBBQwEoIQc2hvcC5leGFtcGxlLmNvbTAKBggqhkjOPQQDAgNJ
ADBGAiEA3Or4zvdA5o8WN6zxaMaDUeUu/P8D9SDBY4/tqLYi6mcCIQCzCqdCW4dN
RLWDMx5bpKjCupOIO32N0uwL+PiZ6Zm8Sg==
-----END CERTIFICATE REQUEST-----
`

// Key makes a private key.
func Key(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// DER makes a request for names, the first of them as common name, and for a new key.
func DER(tb testing.TB, names ...string) []byte {
	tb.Helper()
	return Sign(tb, Key(tb), names[0], names...)
}

// PEM makes a request in PEM; a nil key means a new one.
func PEM(tb testing.TB, key crypto.Signer, cn string, sans ...string) string {
	tb.Helper()
	if key == nil {
		key = Key(tb)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: Sign(tb, key, cn, sans...)}))
}

// Sign makes a request for the key, in DER.
func Sign(tb testing.TB, key crypto.Signer, cn string, sans ...string) []byte {
	tb.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}
