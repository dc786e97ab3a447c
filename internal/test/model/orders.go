package model

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// traits are what the tape chose for the vendors and the storage.
type traits struct {
	blind, noFinder, newID, coversTwin, saysTwin, tellsTerm bool
	prepares, predicts, renews, keepsProduct, noDeaths      bool
	missingFolder                                           bool // listing a folder that does not exist is an error
}

func (w *World) drawTraits() {
	draw := func(t Trait, n int) bool {
		if t != Drawn {
			return t == Yes
		}
		return w.tape.Pick(n) == 1
	}
	t := &w.traits
	t.blind = draw(w.p.Blind, 6)
	t.noFinder = draw(w.p.NoFinder, 12)
	t.newID = draw(w.p.NewID, 2)
	t.coversTwin = draw(w.p.CoversTwin, 2)
	t.saysTwin = t.coversTwin || draw(w.p.SaysTwin, 2)
	t.tellsTerm = draw(w.p.TellsTerm, 2)
	t.prepares = draw(w.p.Prepares, 4)
	t.predicts = draw(w.p.Predicts, 2)
	t.renews = draw(w.p.Renews, 3)
	t.keepsProduct = draw(w.p.RenewKeepsProduct, 2)
	t.noDeaths = draw(w.p.NoDeaths, 2)
	t.missingFolder = w.tape.Pick(2) == 1
}

// order is what a vendor knows of an order, or of a reissue under another ID.
type order struct {
	id, account, ref, product string
	names                     []string
	key                       crypto.PublicKey
	root                      *order // the paid one; itself unless it is a reissue
	next                      *order // the reissue that replaced it
	status                    vendors.Status
	ready                     time.Duration // when it is issued, or fails
	shown                     time.Duration // until then the vendor denies it
	paid, ends                time.Duration // of the paid term
	term                      time.Duration
	issued, expires           time.Duration
	asked                     time.Duration // when a server that knew its ID first read it; of a root
	cert                      []byte
	inCertificate             []string // names, if a market reports them
	dismissed                 bool     // a person found that it is dead
	ours                      bool     // not bought elsewhere
	held                      holding  // of one bought elsewhere that a person has put into the ledger
	handled                   bool     // the vendor was asked by hand, so its certificate may be there without any server knowing
	revoked                   bool     // its certificate, and it lives on
}

// seller is a vendor. All of it belongs to the loop.
type seller struct {
	w        *World
	number   int
	orders   map[string]*order
	byRef    map[string][]*order
	list     []*order // oldest first
	prepared map[string]bool
	charges  []Charge
}

func newSeller(w *World, number int) *seller {
	return &seller{w: w, number: number, orders: make(map[string]*order), byRef: make(map[string][]*order), prepared: make(map[string]bool)}
}

// buyElsewhere adds an order of which no server knows, and returns its ID.
func (s *seller) buyElsewhere(names []string) (id string) {
	if s.w.market != nil {
		id = s.w.market.BuyElsewhere(s.number, names)
		s.w.readBooks(nil)
		return id
	}
	id = fmt.Sprintf("x%d", len(s.list)+1)
	ends := []time.Duration{15 * day, 30 * day}[s.w.tape.Pick(2)]
	o := &order{
		id: id, ref: id, product: "dv", names: names, key: modelCA().foreign.Public(), status: vendors.StatusIssued, ends: ends, term: ends,
		expires: min(s.w.p.Life, ends),
	}
	o.root = o
	o.cert = s.sign(o)
	s.add(o)
	return id
}

// key is what an order is found by: each account of a market numbers its own orders.
func (s *seller) key(account, id string) string {
	if s.w.market == nil || id == "" {
		return id
	}
	return account + "/" + id
}

func (s *seller) add(o *order) {
	s.orders[s.key(o.account, o.id)] = o
	s.byRef[o.ref] = append(s.byRef[o.ref], o)
	s.list = append(s.list, o)
}

// create makes an order, or a reissue of root.
func (s *seller) create(o *order, root *order) *order {
	w := s.w
	o.id = fmt.Sprintf("%s%d", []string{"p", "q"}[s.number], len(s.list)+1)
	o.root, o.ours, o.paid = o, true, w.now()
	o.status = vendors.StatusPending
	o.ends = o.paid + o.term
	if root != nil {
		o.root, o.ours, o.paid, o.ends, o.term = root, root.ours, root.paid, root.ends, root.term
	}
	o.ready = w.now() + one(w, w.p.Ready...)
	o.shown = w.now() + one(w, 0, 0, 30*time.Second, w.p.Lie)
	s.add(o)
	return o
}

// covered returns the names in the certificate: its own, and twins that the CA adds.
func (s *seller) covered(o *order) []string {
	names := slices.Clone(o.names)
	if s.w.market != nil {
		return append(names, o.inCertificate...)
	}
	if s.w.traits.coversTwin {
		for _, n := range o.names {
			if t := Twin(n); t != "" && !slices.Contains(names, t) {
				names = append(names, t)
			}
		}
	}
	return names
}

// look lets time take effect on an order.
func (s *seller) look(o *order) {
	if s.w.market != nil {
		return
	}
	now := s.w.now()
	if o.status == vendors.StatusPending && now >= o.ready {
		if !s.w.traits.noDeaths && s.w.oneIn(15) {
			o.status = vendors.StatusRejected
			return
		}
		o.status, o.issued, o.expires = vendors.StatusIssued, now, min(now+s.w.p.Life, o.ends)
		o.cert = s.sign(o)
		s.w.say("vendor %d issues %s for %v", s.number, o.id, o.names)
	}
	if o.status == vendors.StatusIssued && now > o.ends {
		o.status = vendors.StatusExpired
	}
}

// ca is what all vendors sign with.
type ca struct {
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
	foreign *ecdsa.PrivateKey // of certificates that were bought elsewhere
}

var modelCA = sync.OnceValue(func() *ca {
	var c ca
	for _, k := range []**ecdsa.PrivateKey{&c.key, &c.foreign} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		*k = key
	}
	// Signed by a root that nobody sees, so it is an intermediate. A bubble's clock
	// starts in the year 2000.
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "model"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	root := template
	root.Subject = pkix.Name{CommonName: "model root"}
	der, err := x509.CreateCertificate(rand.Reader, &template, &root, c.key.Public(), c.key)
	if err != nil {
		panic(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	return &c
})

func (s *seller) sign(o *order) []byte {
	w := s.w
	w.result.Signed++
	names := s.covered(o)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(w.result.Signed) + 1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: w.start.Add(o.issued), NotAfter: w.start.Add(o.expires),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, modelCA().cert, o.key, modelCA().key)
	if err != nil {
		panic(err)
	}
	return der
}

// sameKey reports whether two public keys are the same.
func sameKey(a, b crypto.PublicKey) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
