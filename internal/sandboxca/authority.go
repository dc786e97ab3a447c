package sandboxca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// organization is in every certificate the sandbox makes, if only as its issuer.
const organization = "caddy-commercial SANDBOX — do not trust"

// authorityLifetime outlasts every test that moves its clock.
const authorityLifetime = 30 * 365 * 24 * time.Hour

// authority is a root and the intermediate that signs.
type authority struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey // the intermediate's
}

const (
	rootCertFile         = "root.pem"
	rootKeyFile          = "root.key"
	intermediateCertFile = "intermediate.pem"
	intermediateKeyFile  = "intermediate.key"
)

// openAuthority loads the authority in dir, or makes one and stores it there.
func openAuthority(dir string, now time.Time) (*authority, error) {
	if dir == "" {
		a, _, err := newAuthority(now)
		return a, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The intermediate's key is written last: if it is missing, an earlier attempt was
	// interrupted before anything could be signed.
	_, err := os.Stat(filepath.Join(dir, intermediateKeyFile))
	if err == nil {
		return loadAuthority(dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a, rootKey, err := newAuthority(now)
	if err != nil {
		return nil, err
	}
	rootKeyPEM, err := keyPEM(rootKey)
	if err != nil {
		return nil, err
	}
	interKeyPEM, err := keyPEM(a.key)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{rootCertFile, certPEM(a.root.Raw), 0o644},
		{rootKeyFile, rootKeyPEM, 0o600},
		{intermediateCertFile, certPEM(a.intermediate.Raw), 0o644},
		{intermediateKeyFile, interKeyPEM, 0o600},
	} {
		if err := writeFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func newAuthority(now time.Time) (*authority, *ecdsa.PrivateKey, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	root, err := signCA("Root", now, nil, rootKey, rootKey)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	intermediate, err := signCA("Intermediate", now, root, key, rootKey)
	if err != nil {
		return nil, nil, err
	}
	return &authority{root: root, intermediate: intermediate, key: key}, rootKey, nil
}

// signCA makes a CA certificate; a nil parent means self-signed.
func signCA(role string, now time.Time, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{organization},
			CommonName:   organization + " — " + role + " " + serial.Text(16)[:6],
		},
		NotBefore:             now.Add(-24 * time.Hour).Truncate(time.Second),
		NotAfter:              now.Add(authorityLifetime).Truncate(time.Second),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent = tmpl
	} else {
		tmpl.MaxPathLenZero = true
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// sign makes a leaf certificate.
func (a *authority) sign(leaf *Leaf) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: leaf.Names[0]},
		NotBefore:    leaf.NotBefore,
		NotAfter:     leaf.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  leaf.Usages,

		BasicConstraintsValid: true,
	}
	if leaf.CRLURL != "" {
		tmpl.CRLDistributionPoints = []string{leaf.CRLURL}
	}
	if _, isRSA := leaf.Key.(*rsa.PublicKey); isRSA {
		tmpl.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, name := range leaf.Names {
		if ip, err := netip.ParseAddr(name); err == nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip.AsSlice())
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.intermediate, leaf.Key, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// crlLifetime is how long a CRL is valid. Those for subscriber certificates may be valid
// for up to ten days (Baseline Requirements 4.9.7); this one is made on request.
const crlLifetime = 24 * time.Hour

// revocations makes a CRL, in DER.
func (a *authority) revocations(entries []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	return x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    big.NewInt(now.UnixNano()),
		ThisUpdate:                now.Truncate(time.Second),
		NextUpdate:                now.Add(crlLifetime).Truncate(time.Second),
		RevokedCertificateEntries: entries,
	}, a.intermediate, a.key)
}

func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	// Setting the second-highest bit fixes the length; clearing the highest keeps the
	// ASN.1 integer positive.
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

func loadAuthority(dir string) (*authority, error) {
	root, err := readCert(filepath.Join(dir, rootCertFile))
	if err != nil {
		return nil, err
	}
	intermediate, err := readCert(filepath.Join(dir, intermediateCertFile))
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, intermediateKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s contains no PEM block", intermediateKeyFile)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", intermediateKeyFile, err)
	}
	if err := intermediate.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("%s is not signed by %s: %w", intermediateCertFile, rootCertFile, err)
	}
	if !key.PublicKey.Equal(intermediate.PublicKey) {
		return nil, fmt.Errorf("%s does not match %s", intermediateKeyFile, intermediateCertFile)
	}
	return &authority{root: root, intermediate: intermediate, key: key}, nil
}

func readCert(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s contains no PEM block", filepath.Base(path))
	}
	return x509.ParseCertificate(block.Bytes)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
