package bundle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

// The layouts that openssl makes are tested in the issuer, which imports them.

// pair makes a certificate and its key.
func pair(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, DNSNames: []string{"example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestEachOnce: what is in several files appears once, under the name of the first one.
func TestEachOnce(t *testing.T) {
	cert, key := pair(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	all := append(block("CERTIFICATE", cert.Raw), block("PRIVATE KEY", der)...)
	c := new(Contents)
	for _, file := range []string{"first", "second"} {
		if err := c.Add(file, all, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.Certificates) != 1 || len(c.Keys) != 1 || c.Certificates[0].File != "first" || c.Keys[0].File != "first" {
		t.Errorf("%+v", c)
	}
}

// TestPasswordIsAskedForOnce: the password is asked for once, and never shown.
func TestPasswordIsAskedForOnce(t *testing.T) {
	cert, key := pair(t)
	pfx, err := pkcs12.Modern.Encode(key, cert, nil, "secret word")
	if err != nil {
		t.Fatal(err)
	}
	for password, wrong := range map[string]bool{"secret word": false, "other word": true} {
		asked := 0
		err := new(Contents).Add("in.pfx", pfx, func(file string) (string, error) {
			asked++
			return password, nil
		})
		if errors.Is(err, ErrPassword) != wrong || asked != 1 || err != nil && strings.Contains(err.Error(), "word ") {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
	if err := new(Contents).Add("in.pfx", pfx, nil); err == nil || !strings.Contains(err.Error(), "in.pfx: it is encrypted") {
		t.Errorf("error = %v", err)
	}
}

// TestUnreadableCertificateIsNoted: an unreadable certificate among others is only noted; alone, it
// is an error.
func TestUnreadableCertificateIsNoted(t *testing.T) {
	cert, _ := pair(t)
	bad := block("CERTIFICATE", cert.Raw[:100])
	c := new(Contents)
	if err := c.Add("in", append(block("CERTIFICATE", cert.Raw), bad...), nil); err != nil || len(c.Notes) != 1 {
		t.Errorf("%v, %q", err, c.Notes)
	}
	if err := new(Contents).Add("in", bad, nil); err == nil || !strings.Contains(err.Error(), "a certificate that cannot be read") {
		t.Errorf("error = %v", err)
	}
}

// TestPKCS12Key uses a test vector that other implementations use, too.
func TestPKCS12Key(t *testing.T) {
	if got := hex.EncodeToString(pkcs12Key("smeg", []byte{0x0a, 0x58, 0xCF, 0x64, 0x53, 0x0d, 0x82, 0x3f}, 1, 1, 24)); got != "8aaae6297b6cb04642ab5b077851284eb7128f1a2a7fbca3" {
		t.Error(got)
	}
}

func FuzzAdd(f *testing.F) {
	cert, key := pair(f)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	pfx, err := pkcs12.Modern.WithIterations(1).Encode(key, cert, nil, "password")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		cert.Raw, pkcs8, sec1, pfx, block("CERTIFICATE", cert.Raw), block("PRIVATE KEY", pkcs8), block("PKCS7", cert.Raw),
		[]byte("\xff\xfe-\x00-\x00"), []byte("-----BEGIN "), {0x30, 0x80},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := new(Contents)
		err := c.Add("file", data, func(string) (string, error) { return "password", nil })
		if err == nil && len(c.Certificates)+len(c.Keys) == 0 {
			t.Error("nothing was found, and there is no error")
		}
		if err != nil && !strings.Contains(err.Error(), "file") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
