package sandboxca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// Leaf is a certificate that is about to be signed.
type Leaf struct {
	Names               []string // the first one is the common name
	Key                 crypto.PublicKey
	NotBefore, NotAfter time.Time
	TermEnd             time.Time // of the paid term
	Usages              []x509.ExtKeyUsage
	CRLURL              string // empty for none

	// Instead, if not nil, is delivered and nothing is signed.
	Instead []byte
}

// Hooks change what the CA does by itself. Any of them may be nil, and all are in a CA
// that behaves. They are called with the books open.
type Hooks struct {
	// Repeat may change what a seller does with a reference that was used before.
	Repeat func(Repeat) Repeat

	// Refuse may refuse an order that would be taken.
	Refuse func(*Order) *Refusal

	// Order may change an order that is about to be taken.
	Order func(*Order)

	// Leaf may change a certificate that is about to be signed. The parent is nil for an
	// order's first one.
	Leaf func(o, parent *Order, leaf *Leaf) error

	// Chain may change certificates that are about to be delivered together.
	Chain func(chain [][]byte, intermediate, root []byte) [][]byte

	// Fetch may make a perspective, counted from 1, find nothing at a host.
	Fetch func(perspective int, host string) error

	// Recheck makes the CA check proven names again until the certificate is issued, and
	// mark them unproven when the proof is gone.
	Recheck bool
}

// issue signs the certificate of an order.
func (c *CA) issue(o *Order, now time.Time) (*x509.Certificate, error) {
	csr, err := x509.ParseCertificateRequest(o.CSR)
	if err != nil {
		return nil, fmt.Errorf("parsing stored csr: %w", err)
	}
	c.cfg.keepCalendar(now)
	leaf := &Leaf{
		Names:     o.NameList(),
		Key:       csr.PublicKey,
		NotBefore: now.Add(-time.Minute).Truncate(time.Second),
		NotAfter:  now.Add(c.cfg.Lifetime).Truncate(time.Second),
		TermEnd:   c.termEnd(o, now),
		Usages:    c.cfg.usages(),
		CRLURL:    c.cfg.CRLURL,
	}
	if o.Twin != nil && o.Twin.Verified {
		leaf.Names = append(leaf.Names, o.Twin.Name)
	}
	if o.ClipToTerm && leaf.NotAfter.After(leaf.TermEnd) {
		leaf.NotAfter = leaf.TermEnd
	}
	if c.cfg.Hooks.Leaf != nil {
		if err := c.cfg.Hooks.Leaf(o, c.st.byID[o.Parent], leaf); err != nil {
			return nil, err
		}
	}
	if leaf.Instead != nil {
		return x509.ParseCertificate(leaf.Instead)
	}
	return c.authority.sign(leaf)
}

// usages are the extended key usages of a leaf.
func (cfg *Config) usages() []x509.ExtKeyUsage {
	if cfg.ClientAuth {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// Above is the chain above a leaf as it is delivered, in DER: the intermediate.
func (b Books) Above() [][]byte { return b.chain([][]byte{b.c.authority.intermediate.Raw}) }

// FullChain is the leaf, intermediate and root of an order as they are delivered, in DER.
func (b Books) FullChain(o *Order) [][]byte {
	return b.chain([][]byte{o.Cert, b.c.authority.intermediate.Raw, b.c.authority.root.Raw})
}

// Root is the root certificate in DER.
func (b Books) Root() []byte { return b.c.authority.root.Raw }

func (b Books) chain(ders [][]byte) [][]byte {
	if hook := b.c.cfg.Hooks.Chain; hook != nil {
		return hook(ders, b.c.authority.intermediate.Raw, b.c.authority.root.Raw)
	}
	return ders
}

// CertificatePEM is the PEM text of certificates in DER, one after the other.
func CertificatePEM(ders ...[]byte) string {
	var buf bytes.Buffer
	for _, der := range ders {
		buf.Write(certPEM(der))
	}
	return buf.String()
}

// RequestPEM is the PEM text of a CSR in DER.
func RequestPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}
