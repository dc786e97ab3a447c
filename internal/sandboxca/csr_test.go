package sandboxca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

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
	block, _ := pem.Decode([]byte(csrtest.PEM(t, nil, "a.example.com")))
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	tests := map[string]struct{ csr, want string }{
		"text":        {"not a csr", "not PEM"},
		"certificate": {encode("CERTIFICATE", block.Bytes), "of type"},
		"trailing":    {csrtest.PEM(t, nil, "a.example.com") + "more", "behind"},
		"broken":      {encode("CERTIFICATE REQUEST", block.Bytes[:40]), "cannot be decoded"},
		"forged":      {encode("CERTIFICATE REQUEST", forged), "invalid signature"},
		"no cn":       {csrtest.PEM(t, nil, "", "a.example.com"), "no common name"},
		"long cn":     {csrtest.PEM(t, nil, strings.Repeat("a", 61)+".com"), "65 characters"},
		"small rsa":   {csrtest.PEM(t, smallRSA, "a.example.com"), "1024 bits"},
		"ed25519":     {csrtest.PEM(t, edKey, "a.example.com"), "unsupported key"},
		"p224":        {csrtest.PEM(t, p224, "a.example.com"), "unsupported curve"},
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
		block, _ := pem.Decode([]byte(csrtest.PEM(t, nil, tt.cn, tt.sans...)))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckCSRNames(csr, tt.names); (err == nil) != tt.ok {
			t.Errorf("cn %s, sans %v, names %v: %v", tt.cn, tt.sans, tt.names, err)
		}
	}
}
