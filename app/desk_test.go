package app

import (
	"slices"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// deskIssuer is an issuer with an account.
type deskIssuer struct {
	testIssuer
	account operator.Account
}

func (iss *deskIssuer) Account() (operator.Account, bool) { return iss.account, true }

// A list of orders has the same order in each request, which its pages go by.
func TestDeskIsInOrder(t *testing.T) {
	a := &App{members: make(map[Member]*membership)}
	h := new(hosts)
	var want []string
	for _, name := range []string{"c", "a", "d", "b", "f", "e"} {
		m := &deskIssuer{account: operator.Account{
			About:  vendors.Description{Name: name, Account: "test"},
			Ledger: &ledger.Ledger{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Prefix: ledger.Prefix(name, "test")},
		}}
		a.members[m] = new(membership)
		h.members = append(h.members, []Member{m, m})
		want = append(want, m.account.Ledger.Storage.(*certmagic.FileStorage).Path)
	}
	a.hosts.Store(h)
	for range 10 {
		var got []string
		for _, storage := range a.Desk().Storages {
			got = append(got, storage.(*certmagic.FileStorage).Path)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}
