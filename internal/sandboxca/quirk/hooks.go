package quirk

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/reseller"
)

// Hooks are the quirks of the CA itself.
func (q Quirks) Hooks() sandboxca.Hooks {
	return sandboxca.Hooks{
		Repeat: q.repeat, Refuse: q.refuse, Order: q.order, Leaf: q.leaf, Chain: q.chain,
		Fetch: q.fetch, Recheck: q.RefetchAfterPass,
	}
}

func (q Quirks) repeat(r sandboxca.Repeat) sandboxca.Repeat {
	switch {
	case r != sandboxca.RepeatIsFirst:
	case q.LooseRefID:
		return sandboxca.RepeatIsNew
	case q.StrictRefID:
		return sandboxca.RepeatRefused
	}
	return r
}

func (q Quirks) refuse(o *sandboxca.Order) *sandboxca.Refusal {
	if !q.DemandCountry {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(o.CSR)
	if err != nil || len(csr.Subject.Country) == 0 {
		return sandboxca.Refuse(sandboxca.RefusedByCA, sandboxca.AboutCSR, "the subject of the csr has no country (C=)")
	}
	return nil
}

func (q Quirks) fetch(perspective int, host string) error {
	if perspective <= q.MissPerspectives {
		return errors.New("nothing found from this perspective")
	}
	host = strings.TrimPrefix(host, "*.")
	for _, zone := range q.BogusZones {
		if zone = strings.TrimSuffix(zone, "."); host == zone || strings.HasSuffix(host, "."+zone) {
			return fmt.Errorf("looking %s up: SERVFAIL: the DNSSEC signatures of %s do not verify", host, zone)
		}
	}
	return nil
}

func (q Quirks) order(o *sandboxca.Order) {
	if q.NoTwin {
		o.Twin = nil
	}
	if q.Trailer != "" && o.Proof == reseller.CSRHash(o.CSR, o.Unique, "") {
		o.Proof = reseller.CSRHash(o.CSR, o.Unique, q.Trailer)
	}
	if q.NumericIDs && !numeric(o.ID) {
		// Few enough digits for a float64, and no leading zero.
		o.ID = "1" + sandboxca.RandomText("0123456789", 10)
	}
}

func (q Quirks) leaf(o, parent *sandboxca.Order, leaf *sandboxca.Leaf) error {
	again := o.Kind == sandboxca.KindReissue || o.Kind == sandboxca.KindReplace
	if q.SameCertAgain && again && parent.Cert != nil {
		leaf.Instead = parent.Cert
		return nil
	}
	if q.ServerAuthOnlyAgain && again {
		leaf.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if q.TwinFirst && o.Twin != nil && o.Twin.Verified {
		leaf.Names = slices.Insert(o.NameList(), 0, o.Twin.Name)
	}
	if q.WrongCN != "" {
		leaf.Names = slices.Insert(leaf.Names, 0, q.WrongCN)
	}
	if q.WrongKey {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf.Key = other.Public()
	}
	if q.ClipToTerm && leaf.NotAfter.After(leaf.TermEnd) {
		leaf.NotAfter = leaf.TermEnd
	}
	if q.ExpiredCert {
		back := leaf.NotAfter.Sub(leaf.NotBefore) + 59*time.Minute // NotBefore is a minute ago
		leaf.NotBefore, leaf.NotAfter = leaf.NotBefore.Add(-back), leaf.NotAfter.Add(-back)
	}
	return nil
}

func (q Quirks) chain(chain [][]byte, intermediate, root []byte) [][]byte {
	is := func(want []byte) func([]byte) bool {
		return func(der []byte) bool { return bytes.Equal(der, want) }
	}
	if q.OmitIntermediate {
		return slices.DeleteFunc(chain, is(intermediate))
	}
	if (q.IncludeRoot || q.ReverseChain) && !slices.ContainsFunc(chain, is(root)) {
		chain = append(chain, root)
	}
	if q.ReverseChain {
		slices.Reverse(chain)
	}
	return chain
}

func numeric(id string) bool {
	return id != "" && strings.Trim(id, "0123456789") == ""
}
