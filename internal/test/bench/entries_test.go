package main

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func template(now time.Time) *ledger.Entry {
	return &ledger.Entry{
		Version: 2, ID: "first", Names: []string{"first.example"}, Covered: []string{"first.example"}, State: ledger.Issued, OrderID: "1",
		Term: vendors.Term{Years: 1}, Paid: now, Ends: now.AddDate(1, 0, 0), Issued: 1,
		Attempt: ledger.Attempt{Kind: ledger.KindOrder, Reference: "reference", Started: now}, Certificate: &ledger.Certificate{Serial: "1", NotBefore: now, NotAfter: now.AddDate(0, 6, 0)},
	}
}

// TestSeedLedger fills a ledger with orders that are completed and in force.
func TestSeedLedger(t *testing.T) {
	dir, prefix, now := t.TempDir(), ledger.Prefix("racent", "bench"), time.Now()
	storage, template := &certmagic.FileStorage{Path: dir}, template(now)
	l := &ledger.Ledger{Storage: storage, Prefix: prefix, Memory: new(ledger.Memory)}
	if err := l.Create(t.Context(), template); err != nil {
		t.Fatal(err)
	}
	if template, err := l.Load(t.Context(), "first"); err != nil {
		t.Fatal(err)
	} else if err := seedLedger(dir, prefix, template, quickEntries, true); err != nil {
		t.Fatal(err)
	}
	heap, err := heapOfEntry(t.Context(), dir, prefix, quickEntries+1)
	if err != nil || heap <= 0 {
		t.Errorf("an entry takes %v bytes, %v", heap, err)
	}
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shop-000000.example.org", "www.shop-001999.example.org"} {
		found, err := l.About(t.Context(), name)
		if err != nil || len(found) != 1 || !found[0].Blocks(name, 30*24*time.Hour, now) || !found[0].Certificate.NotAfter.After(now.AddDate(0, 2, 0)) {
			t.Errorf("%s: found %v, %v", name, found, err)
		}
	}
}

// TestListHoldsAPage: a list holds a page of entries at a time, however many there are.
func TestListHoldsAPage(t *testing.T) {
	many, few, prefix := t.TempDir(), t.TempDir(), ledger.Prefix("racent", "bench")
	for dir, n := range map[string]int{many: quickEntries, few: quickFewEntries} {
		if err := seedLedger(dir, prefix, template(time.Now()), n, false); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := listRows(t.Context(), options{quick: true, entries: quickEntries}, prefix, many, few, quickFewEntries)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	if held := rows[1]; held.value > 1.25 {
		t.Errorf("%s: %s, against %s", held.claim, held.ours, held.peer)
	}
}
