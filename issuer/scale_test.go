package issuer

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// unserved is a site whose names have no certificate yet.
type unserved struct{ site }

func (unserved) Served(string) []*x509.Certificate { return nil }
func (unserved) Allows(string) (bool, bool)        { return true, false }

// BenchmarkNeedy10000 measures checking the names when 10,000 orders are pending, half of them for
// names that handshakes ask for.
func BenchmarkNeedy10000(b *testing.B) {
	const n = 10_000
	a := newAccount()
	l := &ledger.Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: &a.ledger}
	f := &flow{ledger: l, account: a, site: unserved{}}
	var names []string
	now := l.Time()
	for i := range n {
		name := fmt.Sprintf("shop-%d.example.com", i)
		if i < n/2 {
			names = append(names, name)
		}
		e := &ledger.Entry{
			ID: l.NewID(), Names: []string{name}, State: ledger.Open, OrderID: fmt.Sprint(i), Term: vendors.Term{Years: 1},
			Paid: now, Ends: now.Add(365 * 24 * time.Hour),
		}
		if err := l.Create(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if got := len(f.needy(names, func(string) bool { return true })); got != n {
			b.Fatalf("%d names need work", got)
		}
	}
}
