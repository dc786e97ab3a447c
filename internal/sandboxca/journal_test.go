package sandboxca

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
)

var testRules = Rules{NewID: func(n int64, _ time.Time) string { return fmt.Sprint("id", n) }}

// shop is a CA without any dialect, in a directory.
type shop struct {
	*CA
	t   testing.TB
	csr []byte
}

func openShop(t testing.TB, dir string) *shop {
	t.Helper()
	now := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	ca, err := New(Config{
		Dir: dir, Accounts: []Account{{Token: "t", Balance: 1_000_000_000}},
		Products: []Product{{Code: "p", ValidationType: DV, Standard: true}},
		Now:      func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	block, _ := pem.Decode([]byte(csrtest.Worked))
	return &shop{CA: ca, t: t, csr: block.Bytes}
}

// take takes an order for one name.
func (s *shop) take(reference string) string {
	s.t.Helper()
	o := &Order{
		Dialect: "test", Account: Account{Token: "t"}.Key(), RefID: reference, Kind: KindPlace,
		Product: "p", Years: 1, Cents: 100, CSR: s.csr,
	}
	o.Names = []*Name{{Name: "shop.example.com", Method: MethodEmail}}
	id, ref := s.Create(o, testRules)
	if ref != nil {
		s.t.Fatal(ref.Text)
	}
	return id
}

// buy takes an order and sees it through to its certificate.
func (s *shop) buy(reference string) string {
	s.t.Helper()
	id := s.take(reference)
	if err := s.Approve(id, "shop.example.com"); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// books are what must survive.
type books struct {
	Orders  []OrderInfo
	Charges []Charge
	Balance int64
}

func (s *shop) books() books { return books{s.Orders(), s.Charges(), s.Balance("t")} }

func (s *shop) balanced() {
	s.t.Helper()
	b := s.books()
	if len(b.Orders) != len(b.Charges) || b.Balance != 1_000_000_000-100*int64(len(b.Orders)) {
		s.t.Errorf("%d orders, %d charges, balance %d", len(b.Orders), len(b.Charges), b.Balance)
	}
}

// TestKilledWhileWriting cuts the last line of the journal at many places, as if the
// process had been killed in the middle of a write.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	s.buy("one")
	before := s.books()
	path := filepath.Join(dir, journalFile)
	whole := read(t, path)
	s.take("two")
	after := s.books()
	s.Close()
	longer := read(t, path)

	for cut := len(whole); cut < len(longer); cut += 61 {
		write(t, path, longer[:cut])
		again := openShop(t, dir)
		if got := again.books(); !reflect.DeepEqual(got, before) {
			t.Fatalf("cut at %d of %d: %+v, want %+v", cut, len(longer), got, before)
		}
		again.buy("three")
		want := again.books()
		again.Close()
		third := openShop(t, dir)
		if got := third.books(); !reflect.DeepEqual(got, want) {
			t.Fatalf("cut at %d, after another order: %+v, want %+v", cut, got, want)
		}
		third.balanced()
		third.Close()
	}
	write(t, path, longer)
	if got := openShop(t, dir).books(); !reflect.DeepEqual(got, after) {
		t.Errorf("uncut: %+v, want %+v", got, after)
	}
}

// TestFailedWriteHeals leaves half a line in the file of a running process, as a write to
// a full disk does.
func TestFailedWriteHeals(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	s.buy("one")
	path := filepath.Join(dir, journalFile)
	write(t, path, append(read(t, path), `{"seq":2,"orders":[{"id":"id2"`...))
	s.buy("two")
	want := s.books()
	s.Close()
	again := openShop(t, dir)
	if got := again.books(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	again.balanced()
}

// TestWritesAreSmall counts the bytes that a thousand orders take: as many for the second
// half as for the first, and the file is never rewritten.
func TestWritesAreSmall(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	path := filepath.Join(dir, journalFile)
	first := stat(t, path)
	sizes := []int64{first.Size()}
	for i := range 1000 {
		s.buy(fmt.Sprint("order", i))
		if i == 499 || i == 999 {
			sizes = append(sizes, stat(t, path).Size())
		}
	}
	if !os.SameFile(first, stat(t, path)) {
		t.Error("the file was rewritten")
	}
	a, b := sizes[1]-sizes[0], sizes[2]-sizes[1]
	if b > a+a/50 || a > 500*5000 {
		t.Errorf("%d bytes for the first half, %d for the second", a, b)
	}
	t.Logf("%d bytes an order", a/500)
}

// TestCompaction loads a journal most of which is superseded.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	id := s.buy("one")
	other := s.take("two")
	for i := range compactBelow + 10 {
		if err := s.SetStatus(id, fmt.Sprint("STATUS", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetBalance("t", 777); err != nil {
		t.Fatal(err)
	}
	want := s.books()
	s.Close()
	path := filepath.Join(dir, journalFile)
	long := stat(t, path).Size()
	for range 2 {
		again := openShop(t, dir)
		if got := again.books(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if short := stat(t, path).Size(); short > long/100 {
			t.Errorf("%d bytes of %d are left", short, long)
		}
		again.Close()
	}
	// Orders continue after compaction.
	last := openShop(t, dir)
	if err := last.Approve(other, "shop.example.com"); err != nil {
		t.Fatal(err)
	}
	if next := last.take("three"); next != "id3" {
		t.Errorf("the next order is %s", next)
	}
}

func TestRecordsAreKept(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	put := func(s *shop, key, data string) {
		t.Helper()
		b := s.Open()
		defer b.Close()
		if ref := b.Put(Record{"test", key, []byte(data)}); ref != nil {
			t.Fatal(ref.Text)
		}
	}
	put(s, "a", `{"n":1}`)
	put(s, "b", `2`)
	put(s, "a", `{"n":3}`)
	s.Close()
	again := openShop(t, dir)
	b := again.Open()
	defer b.Close()
	got := make(map[string]string)
	for _, r := range b.Records("test") {
		got[r.Key] = string(r.Data)
	}
	if want := map[string]string{"a": `{"n":3}`, "b": "2"}; !reflect.DeepEqual(got, want) || len(b.Records("other")) > 0 {
		t.Errorf("records %v, want %v", got, want)
	}
}

func TestBrokenJournalIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"empty":           "",
		"no head":         `{"version":2`,
		"other version":   `{"version":1}` + "\n",
		"null order":      `{"version":2,"orders":[null]}` + "\n",
		"no ID":           `{"version":2,"orders":[{"names":[{"name":"a"}]}]}` + "\n",
		"no names":        `{"version":2,"orders":[{"id":"a"}]}` + "\n",
		"null progress":   `{"version":2,"progress":{"a":null}}` + "\n",
		"null name":       `{"version":2,"progress":{"a":{"names":[null]}}}` + "\n",
		"broken in front": `{"version":2}` + "\nnot a line\n" + `{"seq":1}` + "\n",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, journalFile), []byte(content))
		if ca, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), journalFile) {
			if ca != nil {
				ca.Close()
			}
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, oldStateFile), []byte("{}"))
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "use another directory") {
		t.Errorf("version 1: %v", err)
	}
}

// FuzzJournal loads arbitrary journals: each is refused, or served without a panic, also
// after another order and a restart.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	s := openShop(f, dir)
	s.buy("one")
	s.take("two")
	s.Close()
	whole := read(f, filepath.Join(dir, journalFile))
	f.Add(whole)
	f.Add(whole[:len(whole)-100])
	f.Add([]byte(`{"version":2,"seq":9,"balances":{"x":1},"charges":[{}],"records":[{}]}` + "\n"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		again := t.TempDir()
		write(t, filepath.Join(again, journalFile), journal)
		ca, err := New(Config{Dir: again, Accounts: []Account{{Token: "t", Balance: 1_000_000_000}}})
		if err != nil {
			return
		}
		ca.Close()
		s := openShop(t, again)
		if s.Balance("t") < 100 {
			return
		}
		want := s.take("three")
		s.Close()
		if _, ok := openShop(t, again).Order(want); !ok {
			t.Error("an order is lost")
		}
	})
}

func BenchmarkOrder(b *testing.B) {
	s := openShop(b, b.TempDir())
	if err := s.SetBalance("t", 1<<60); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		s.buy(fmt.Sprint("order", n))
	}
}

func BenchmarkLoad100000Orders(b *testing.B) {
	dir := b.TempDir()
	s := openShop(b, dir)
	path := filepath.Join(dir, journalFile)
	s.buy("one")
	lines := bytes.SplitAfter(read(b, path), []byte("\n"))
	s.Close()
	// The lines of the order and its certificate again and again, under other IDs.
	at := len(lines) - 4
	var long bytes.Buffer
	long.Write(bytes.Join(lines[:at], nil))
	for i := range 100_000 {
		for _, line := range lines[at : at+2] {
			line = bytes.ReplaceAll(line, []byte(`"id1"`), fmt.Appendf(nil, `"id%d"`, i))
			long.Write(bytes.ReplaceAll(line, []byte(`"ca_cert":"39831000001"`), fmt.Appendf(nil, `"ca_cert":"%d"`, i)))
		}
	}
	write(b, path, long.Bytes())
	b.SetBytes(int64(long.Len()))
	for b.Loop() {
		again := openShop(b, dir)
		if n := len(again.st.orders); n != 100_000 {
			b.Fatalf("%d orders", n)
		}
		again.Close()
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func stat(t testing.TB, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
