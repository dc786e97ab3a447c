package ledger

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// stored returns the nth entry of a large ledger: issued for one name or, for one in a hundred, for ten.
func stored(n int) *Entry {
	paid := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * 5 * time.Minute)
	serial := fmt.Sprintf("%032x", n)
	reference := fmt.Sprintf("cc%024x", n)
	names := []string{fmt.Sprintf("shop-%06d.example.com", n)}
	if n%100 == 0 {
		for i := range 9 {
			names = append(names, fmt.Sprintf("shop-%06d-%d.example.com", n, i))
		}
	}
	return &Entry{
		Version: formatVersion, ID: fmt.Sprintf("%s-%016x", paid.Format("20060102t150405"), n), Revision: 4, Names: names, Covered: names,
		State: Issued, Updated: paid, Product: "sectigo-positivessl", Term: vendors.Term{Years: 1}, Method: vendors.MethodHTTP,
		Paid: paid, Ends: paid.AddDate(1, 0, 0), OrderID: fmt.Sprint(7_000_000 + n), RootID: fmt.Sprint(7_000_000 + n), CAOrderID: fmt.Sprint(3_000_000_000 + n),
		Attempt: Attempt{
			Kind: KindOrder, Reference: reference, Started: paid, AbsenceAge: time.Hour, CSR: make([]byte, 340), Unique: fmt.Sprintf("%020x", n),
			Challenges: []vendors.Challenge{{Method: vendors.MethodHTTP, FileName: fmt.Sprintf("%032X.txt", n), FileContent: fmt.Sprintf("%064x\nsectigo.com\n%020x", n, n)}},
		},
		Certificate: &Certificate{
			Serial: serial, NotBefore: paid, NotAfter: paid.AddDate(0, 0, 199), Key: fmt.Sprintf("%064x", n), Reference: reference,
		},
		Issued: 1,
	}
}

// largeLedger writes n entries to the place of certmagic's files.
func largeLedger(tb testing.TB, n int) (open func() *Ledger) {
	tb.Helper()
	storage := &certmagic.FileStorage{Path: tb.TempDir()}
	open = func() *Ledger {
		return &Ledger{Storage: storage, Prefix: Prefix("racent", "portal.example/shop"), Memory: new(Memory)}
	}
	l := open()
	if err := os.MkdirAll(filepath.Dir(storage.Filename(l.key("x"))), 0o700); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		e := stored(i)
		data, err := json.MarshalIndent(e, "", "  ")
		if err == nil {
			// This does not wait for the disk, as the storage would for each entry.
			err = os.WriteFile(storage.Filename(l.key(e.ID)), data, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return open
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// Benchmark100000 measures what 100,000 orders of an account cost: the first listing of a process,
// which reads all of them; the later ones, on which decisions to buy are based, compared to the
// storage's share; and the queries to memory for each purchase.
func Benchmark100000(b *testing.B) {
	open := largeLedger(b, 100_000)
	l := open()
	before := heap()
	if err := l.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	perEntry := float64(heap()-before) / float64(len(l.Memory.All()))
	refresh := func(l *Ledger) error { return l.Refresh(b.Context()) }
	for _, c := range []struct {
		name string
		do   func(*Ledger) error
	}{
		{"FirstRefresh", func(*Ledger) error { return refresh(open()) }},
		{"NextRefresh", refresh},
		{"List", func(l *Ledger) error {
			_, err := l.Storage.List(b.Context(), path.Join(l.Prefix, entries), false)
			return err
		}},
		{"Spending", func(l *Ledger) error {
			l.Memory.Spending(stored(99_000).Paid, 10)
			return nil
		}},
		{"About", func(l *Ledger) error {
			_, err := l.About(b.Context(), stored(99_000).Names...)
			return err
		}},
		{"Pending", func(l *Ledger) error {
			l.Memory.Pending()
			return nil
		}},
		{"Tally", func(l *Ledger) error {
			l.Memory.Tally()
			return nil
		}},
		{"Lasts", func(l *Ledger) error {
			l.Memory.Lasts(stored(99_000).Names[0])
			return nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.do(l); err != nil {
					b.Fatal(err)
				}
			}
			if c.name == "FirstRefresh" {
				b.ReportMetric(perEntry, "B/entry")
			}
		})
	}
}
