package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// testCA is a root with one intermediate.
type testCA struct {
	tb         testing.TB
	root       *x509.Certificate
	inter      *x509.Certificate
	interKey   *ecdsa.PrivateKey
	lastSerial int64
}

func newTestCA(tb testing.TB, name string) *testCA {
	tb.Helper()
	ca := &testCA{tb: tb}
	rootKey := newKey(tb)
	ca.interKey = newKey(tb)
	root := ca.authority(name + " root")
	ca.root = ca.sign(root, root, rootKey.Public(), rootKey)
	ca.inter = ca.sign(ca.authority(name+" intermediate"), ca.root, ca.interKey.Public(), rootKey)
	return ca
}

func (ca *testCA) authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
}

func (ca *testCA) sign(template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	ca.tb.Helper()
	if template.SerialNumber == nil {
		ca.lastSerial++
		template.SerialNumber = big.NewInt(ca.lastSerial)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		ca.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.tb.Fatal(err)
	}
	return cert
}

// leaf issues a certificate for example.com, which change may alter.
func (ca *testCA) leaf(pub crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	ca.tb.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "example.com"}, DNSNames: []string{"example.com", "www.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	return ca.sign(template, ca.inter, pub, ca.interKey)
}

func ders(certs ...*x509.Certificate) [][]byte {
	var list [][]byte
	for _, cert := range certs {
		list = append(list, cert.Raw)
	}
	return list
}

func TestBuildChain(t *testing.T) {
	ca, stranger := newTestCA(t, "ours"), newTestCA(t, "strange")
	key, otherKey := newKey(t), newKey(t)
	leaf := ca.leaf(key.Public(), nil)
	older := ca.leaf(key.Public(), func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-48 * time.Hour) })
	foreign := ca.leaf(otherKey.Public(), nil)
	cross := ca.sign(ca.authority("ours root"), stranger.inter, ca.root.PublicKey, stranger.interKey)
	whole := []*x509.Certificate{leaf, ca.inter}
	for name, c := range map[string]struct {
		delivered []*x509.Certificate
		key       any
		want      []*x509.Certificate // nil is an error
		err       string
	}{
		"in order":                     {delivered: whole, key: key.Public(), want: whole},
		"reversed":                     {delivered: []*x509.Certificate{ca.inter, leaf}, key: key.Public(), want: whole},
		"root included":                {delivered: []*x509.Certificate{leaf, ca.inter, ca.root}, key: key.Public(), want: whole},
		"root first":                   {delivered: []*x509.Certificate{ca.root, ca.inter, leaf}, key: key.Public(), want: whole},
		"everything twice":             {delivered: []*x509.Certificate{leaf, ca.inter, leaf, ca.inter}, key: key.Public(), want: whole},
		"strangers among them":         {delivered: []*x509.Certificate{stranger.inter, leaf, stranger.root, ca.inter}, key: key.Public(), want: whole},
		"two leaves of one key":        {delivered: []*x509.Certificate{older, leaf, ca.inter}, key: key.Public(), want: whole},
		"the newer leaf first":         {delivered: []*x509.Certificate{leaf, older, ca.inter}, key: key.Public(), want: whole},
		"leaves of two keys":           {delivered: []*x509.Certificate{foreign, leaf, ca.inter}, key: key.Public(), want: whole},
		"cross-signed root":            {delivered: []*x509.Certificate{leaf, ca.inter, cross, stranger.inter}, key: key.Public(), want: []*x509.Certificate{leaf, ca.inter, cross, stranger.inter}},
		"any key":                      {delivered: []*x509.Certificate{ca.inter, foreign}, want: []*x509.Certificate{foreign, ca.inter}},
		"nothing":                      {key: key.Public(), err: "nothing was delivered"},
		"missing intermediate":         {delivered: []*x509.Certificate{leaf}, key: key.Public(), err: `the intermediate certificate "CN=ours intermediate" is missing`},
		"root instead of intermediate": {delivered: []*x509.Certificate{leaf, ca.root}, key: key.Public(), err: "is missing"},
		"another's intermediate":       {delivered: []*x509.Certificate{leaf, stranger.inter}, key: key.Public(), err: "is missing"},
		"wrong key":                    {delivered: []*x509.Certificate{foreign, ca.inter}, key: key.Public(), err: "none of the 2 delivered certificates is for our key"},
		"only CAs":                     {delivered: []*x509.Certificate{ca.inter, ca.root}, key: ca.interKey.Public(), err: "none of the 2 delivered certificates is for our key"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := buildChain(ders(c.delivered...), c.key)
			if c.want == nil {
				if !errors.Is(err, errWrongCertificate) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error = %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, c.want, (*x509.Certificate).Equal) {
				t.Errorf("chain %v, want %v", subjects(got), subjects(c.want))
			}
		})
	}
	t.Run("garbage", func(t *testing.T) {
		_, err := buildChain([][]byte{leaf.Raw, []byte("garbage")}, key.Public())
		if !errors.Is(err, errWrongCertificate) || !strings.Contains(err.Error(), "parsing certificate 2 of 2") {
			t.Errorf("error = %v", err)
		}
	})
}

// TestSameNameOtherKey is about an intermediate that was renewed under its old name: only the
// signature shows which one issued the leaf.
func TestSameNameOtherKey(t *testing.T) {
	ca, twin := newTestCA(t, "ours"), newTestCA(t, "ours")
	key := newKey(t)
	leaf := ca.leaf(key.Public(), nil)
	got, err := buildChain(ders(leaf, twin.inter, ca.inter), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, []*x509.Certificate{leaf, ca.inter}, (*x509.Certificate).Equal) {
		t.Errorf("chain %v", subjects(got))
	}
}

func subjects(certs []*x509.Certificate) []string {
	var list []string
	for _, cert := range certs {
		list = append(list, cert.Subject.String()+" #"+cert.SerialNumber.String())
	}
	return list
}

func TestChainPEM(t *testing.T) {
	ca, key := newTestCA(t, "ours"), newKey(t)
	want := chain{ca.leaf(key.Public(), nil), ca.inter}
	rest := want.pem()
	for i, cert := range want {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || string(block.Bytes) != string(cert.Raw) {
			t.Fatalf("block %d is not the certificate of %s", i, cert.Subject)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes follow the chain", len(rest))
	}
}

func TestCheckCertificate(t *testing.T) {
	ca, key := newTestCA(t, "ours"), newKey(t)
	now := time.Now()
	names := []string{"example.com"}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		names  []string
		serial string
		want   string // empty is good
	}{
		"good":                    {},
		"good for the twin":       {names: []string{"example.com", "www.example.com"}},
		"other names":             {names: []string{"example.com", "shop.example.com"}, want: "it is not for shop.example.com but for example.com, www.example.com"},
		"common name only":        {change: func(c *x509.Certificate) { c.DNSNames = nil }, want: "it is not for example.com"},
		"common name of another":  {change: func(c *x509.Certificate) { c.Subject.CommonName = "elsewhere.example.org" }},
		"wildcard covers":         {change: func(c *x509.Certificate) { c.DNSNames = []string{"*.example.com"} }, names: []string{"shop.example.com"}},
		"expired":                 {change: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, want: "expired at"},
		"not yet valid":           {change: func(c *x509.Certificate) { c.NotBefore = now.Add(maxSkew + time.Minute) }, want: "is the clock right?"},
		"clocks disagree a bit":   {change: func(c *x509.Certificate) { c.NotBefore = now.Add(maxSkew / 2) }},
		"the old one again":       {change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0xabc) }, serial: "abc", want: "it is the old one again (serial abc)"},
		"another serial":          {change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0xabd) }, serial: "abc"},
		"for clients":             {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, want: "it is not meant for servers"},
		"without extended usages": {change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, want: "it is not meant for servers"},
		"for anything":            {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
	} {
		t.Run(name, func(t *testing.T) {
			if c.names == nil {
				c.names = names
			}
			err := checkCertificate(chain{ca.leaf(key.Public(), c.change), ca.inter}, c.names, c.serial, now)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, errWrongCertificate) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
	t.Run("expired intermediate", func(t *testing.T) {
		leaf := ca.leaf(key.Public(), func(c *x509.Certificate) { c.NotAfter = now.Add(2000 * time.Hour) })
		err := checkCertificate(chain{leaf, ca.inter}, names, "", now.Add(1500*time.Hour))
		if err == nil || !strings.Contains(err.Error(), `"CN=ours intermediate" expired`) {
			t.Errorf("error = %v", err)
		}
	})
}

func TestFirstName(t *testing.T) {
	for want, cert := range map[string]*x509.Certificate{
		"example.com":     {Subject: pkix.Name{CommonName: "Example.COM"}, DNSNames: []string{"www.example.com"}},
		"www.example.com": {DNSNames: []string{"WWW.example.com", "example.com"}},
		"":                {},
	} {
		if got := firstName(cert); got != want {
			t.Errorf("first name %q, want %q", got, want)
		}
	}
}
