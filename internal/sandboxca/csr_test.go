package sandboxca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
)

// exampleCSR names shop.example.com; its hashes were computed with openssl.
const exampleCSR = `-----BEGIN CERTIFICATE REQUEST-----
MIIBBTCBqwIBADAbMRkwFwYDVQQDDBBzaG9wLmV4YW1wbGUuY29tMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE2HlahTJJHSlpHEkpuY1Ndxq9XhlZFw6qLJyze2h8
PqKXuA9JWnD51PhRQptsMbaouv58MPALfL7+87GA0tDkeqAuMCwGCSqGSIb3DQEJ
DjEfMB0wGwYDVR0RBBQwEoIQc2hvcC5leGFtcGxlLmNvbTAKBggqhkjOPQQDAgNJ
ADBGAiEA3Or4zvdA5o8WN6zxaMaDUeUu/P8D9SDBY4/tqLYi6mcCIQCzCqdCW4dN
RLWDMx5bpKjCupOIO32N0uwL+PiZ6Zm8Sg==
-----END CERTIFICATE REQUEST-----
`

func TestParseCSRRefuses(t *testing.T) {
	smallRSA, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(newCSR(t, nil, "a.example.com")))
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	tests := map[string]struct{ csr, want string }{
		"text":        {"not a csr", "not PEM"},
		"certificate": {encode("CERTIFICATE", block.Bytes), "of type"},
		"trailing":    {newCSR(t, nil, "a.example.com") + "more", "behind"},
		"broken":      {encode("CERTIFICATE REQUEST", block.Bytes[:40]), "cannot be decoded"},
		"forged":      {encode("CERTIFICATE REQUEST", forged), "invalid signature"},
		"no cn":       {newCSR(t, nil, "", "a.example.com"), "no common name"},
		"long cn":     {newCSR(t, nil, strings.Repeat("a", 61)+".com"), "65 characters"},
		"small rsa":   {newCSR(t, smallRSA, "a.example.com"), "1024 bits"},
		"ed25519":     {newCSR(t, edKey, "a.example.com"), "unsupported key"},
		"p224":        {newCSR(t, p224, "a.example.com"), "unsupported curve"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseCSR(tt.csr); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestCSRNames(t *testing.T) {
	tests := []struct {
		cn    string
		sans  []string
		names []string
		ok    bool
	}{
		{"a.example.com", nil, []string{"a.example.com"}, true},
		{"A.Example.com", []string{"A.example.com"}, []string{"a.example.com"}, true},
		{"a.example.com", []string{"a.example.com"}, []string{"a.example.com", "b.example.com"}, true},
		{"127.0.0.1", []string{"127.0.0.1"}, []string{"127.0.0.1"}, true},
		{"b.example.com", nil, []string{"a.example.com", "b.example.com"}, false},
		{"a.example.com", []string{"c.example.com"}, []string{"a.example.com"}, false},
		{"a.example.com", []string{"127.0.0.1"}, []string{"a.example.com"}, false},
	}
	for _, tt := range tests {
		block, _ := pem.Decode([]byte(newCSR(t, nil, tt.cn, tt.sans...)))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckCSRNames(csr, tt.names); (err == nil) != tt.ok {
			t.Errorf("cn %s, sans %v, names %v: %v", tt.cn, tt.sans, tt.names, err)
		}
	}
}

// newCSR makes a CSR; a nil key means a new P-256 one.
func newCSR(t *testing.T, key crypto.Signer, cn string, sans ...string) string {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, san)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
