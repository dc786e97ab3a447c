package ledger

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestListingOfTheKnown: a listing of known entries costs one call of the storage, however many
// there are.
func TestListingOfTheKnown(t *testing.T) {
	const n = 10_000
	storage := newMemStorage()
	writer, reader := testLedger(storage), testLedger(storage)
	for i := range n {
		create(t, writer, stored(i))
	}
	var lists, loads atomic.Int32
	storage.hook = func(call, _ string) error {
		switch call {
		case "list":
			lists.Add(1)
		case "load":
			loads.Add(1)
		default:
			t.Errorf("a listing calls %s", call)
		}
		return nil
	}
	for _, want := range []int32{n, 0, 0} {
		lists.Store(0)
		loads.Store(0)
		if err := reader.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lists.Load() != 1 || loads.Load() != want {
			t.Errorf("%d listings and %d reads, want 1 and %d", lists.Load(), loads.Load(), want)
		}
	}
	if whole := len(reader.Memory.whole); whole > 0 || len(reader.Memory.All()) != n {
		t.Errorf("%d of %d entries are kept in full", whole, len(reader.Memory.All()))
	}
}

// TestReadingAtATime: many entries are read several at a time, but not all at once.
func TestReadingAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		writer, reader := testLedger(storage), testLedger(storage)
		for i := range 10 * readers {
			create(t, writer, stored(i))
		}
		var now, most atomic.Int32
		storage.hook = func(call, _ string) error {
			if call == "load" {
				if reader.Memory.Listed() {
					t.Error("entries that have not been read yet count as known")
				}
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Second)
				now.Add(-1)
			}
			return nil
		}
		if err := reader.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !reader.Memory.Listed() || most.Load() != readers || len(reader.Memory.All()) != 10*readers {
			t.Errorf("%d reads at a time, %d entries known", most.Load(), len(reader.Memory.All()))
		}
	})
}

// TestStorageFallsBack: what a process has written is kept in full until the storage shows it. A
// storage that shows an older version afterwards is not trusted for a while, because that may block
// too little.
func TestStorageFallsBack(t *testing.T) {
	synctest.Test(t, storageFallsBack)
}

func storageFallsBack(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	e := create(t, l, asked(l, "example.com"))
	before := storage.data[l.key(e.ID)]
	e, err := l.Write(t.Context(), e, func(e *Entry) { placed("1")(e); issued("abc")(e) })
	if err != nil {
		t.Fatal(err)
	}
	after := storage.data[l.key(e.ID)]
	storage.data[l.key(e.ID)] = before
	if got, err := l.Load(t.Context(), e.ID); err != nil || got != e {
		t.Errorf("a storage that is late: %+v, %v", got, err)
	}
	if len(l.Memory.Pending()) != 0 {
		t.Error("an issued entry is pending")
	}
	storage.data[l.key(e.ID)] = after
	if got, err := l.Load(t.Context(), e.ID); err != nil || got.State != Issued || len(l.Memory.whole) != 0 {
		t.Errorf("loaded %+v, %v, %d entries are kept in full", got, err, len(l.Memory.whole))
	}
	storage.data[l.key(e.ID)] = before
	if got, err := l.Load(t.Context(), e.ID); !errors.Is(err, errBehind) {
		t.Errorf("a storage that fell back: %+v, %v", got, err)
	}
	if about, err := l.About(t.Context(), "example.com"); err == nil {
		t.Errorf("About succeeded: %v", about)
	}
	if err := l.Recall(t.Context()); err != nil {
		t.Errorf("the others are not read: %v", err)
	}
	if !l.Memory.HasSerial("example.com", "abc") || l.Memory.About("example.com")[0].State() != Issued {
		t.Error("what was known is forgotten")
	}
	for _, c := range []struct {
		shows string
		after time.Duration
		want  State // empty: an error
	}{
		{after, time.Minute, Issued},
		{before, lateAtMost, ""},
		{before, lateAtMost - 1, ""},
		{after, 0, Issued},
		{before, 1, ""},
		{before, lateAtMost, Asked},
		{before, 0, Asked},
	} {
		time.Sleep(c.after)
		storage.data[l.key(e.ID)] = c.shows
		switch about, err := l.About(t.Context(), "example.com"); {
		case c.want == "" && !errors.Is(err, errBehind):
			t.Errorf("%+v: %v, %v", c, about, err)
		case c.want != "" && (err != nil || len(about) != 1 || about[0].State != c.want):
			t.Errorf("%+v: %v, %v", c, about, err)
		}
	}
}

// TestWrittenDuringListing: an entry that is written while a listing is made may be missing in it,
// and is not forgotten. The next listing must show it.
func TestWrittenDuringListing(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	create(t, l, asked(l, "a.example.com"))
	lost := asked(l, "b.example.com")
	storage.hook = func(call, _ string) error {
		if call == "list" && !l.Memory.Knows("b.example.com") {
			create(t, l, lost)
			return storage.Delete(t.Context(), l.key(lost.ID))
		}
		return nil
	}
	for i, known := range []bool{true, false} {
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l.Memory.Knows("b.example.com") != known || !l.Memory.Knows("a.example.com") {
			t.Errorf("listing %d: known %t", i, !known)
		}
	}
}

// TestRecallIsSpread: repeated reading keeps the same pace for several callers, and after a pause.
func TestRecallIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1200
		storage := newMemStorage()
		l := testLedger(storage)
		for i := range n {
			create(t, l, stored(i))
		}
		reads := 0
		storage.hook = func(call, _ string) error {
			if call == "load" {
				reads++
			}
			return nil
		}
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		hour := func(callers int) int {
			reads = 0
			time.Sleep(time.Hour)
			for range callers {
				if err := l.Recall(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return reads
		}
		all := 0
		for i := range 12 {
			got := hour(1 + i%3)
			if all += got; got > n/6 {
				t.Errorf("%d reads of %d entries in an hour", got, n)
			}
		}
		if all != n {
			t.Errorf("%d reads of %d entries in half a day", all, n)
		}
		time.Sleep(48 * time.Hour)
		if got := hour(1); got == 0 || got > n/6 {
			t.Errorf("%d reads of %d entries at once after a pause", got, n)
		}
		// Entries that could not be read are read again.
		hour(20)
		storage.hook = func(string, string) error { return errors.New("unreachable") }
		time.Sleep(time.Hour)
		if err := l.Recall(t.Context()); err == nil {
			t.Error("no error although the storage cannot be read")
		}
		reads = 0
		storage.hook = func(string, string) error { reads++; return nil }
		if err := l.Recall(t.Context()); err != nil || reads == 0 {
			t.Errorf("%d reads, %v", reads, err)
		}
	})
}

// TestUnreadableEntry: an entry that the storage does not give is reported, so that nothing is bought,
// but keeps no other one from being known, and from being read again.
func TestUnreadableEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		storage := newMemStorage()
		writer, l := testLedger(storage), testLedger(storage)
		for i := range n {
			create(t, writer, stored(i))
		}
		refused := errors.New("permission denied")
		bad := stored(n / 2).ID
		refuse := func(call, key string) error {
			if call == "load" && key == l.key(bad) {
				return refused
			}
			return nil
		}
		storage.hook = refuse
		if err := l.Refresh(t.Context()); !errors.Is(err, refused) || !strings.Contains(err.Error(), bad) {
			t.Errorf("listing: %v", err)
		}
		if known := len(l.Memory.All()); known != n-1 || !l.Memory.Listed() {
			t.Errorf("%d entries are known, listed %t", known, l.Memory.Listed())
		}
		storage.hook = nil
		if err := l.Refresh(t.Context()); err != nil || len(l.Memory.All()) != n {
			t.Errorf("after the repair: %v", err)
		}
		for i := range n {
			e, err := writer.Load(t.Context(), stored(i).ID)
			if err == nil {
				_, err = writer.Write(t.Context(), e, func(e *Entry) { e.Flag = &Flag{Reason: "by a person"} })
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		storage.hook = refuse
		failed := 0
		for range 12 {
			time.Sleep(time.Hour)
			if err := l.Recall(t.Context()); errors.Is(err, refused) {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if noticed := len(l.Memory.Flagged()); noticed != n-1 || failed != 1 || l.Memory.Asks(bad) {
			t.Errorf("%d changes are noticed, with %d failures", noticed, failed)
		}
		// One of which no entry can be read is not asked for each of them.
		var asked atomic.Int32
		storage.hook = func(call, _ string) error {
			if call == "load" {
				asked.Add(1)
				return refused
			}
			return nil
		}
		time.Sleep(time.Hour)
		if err := l.Recall(t.Context()); !errors.Is(err, refused) || asked.Load() > maxUnread+1 {
			t.Errorf("asked %d times, %v", asked.Load(), err)
		}
		fresh := testLedger(storage)
		if err := fresh.Refresh(t.Context()); !errors.Is(err, refused) || fresh.Memory.Listed() {
			t.Errorf("nothing can be read: %v, listed %t", err, fresh.Memory.Listed())
		}
		asked.Store(0)
		storage.hook = func(string, string) error { asked.Add(1); return nil }
		if err := l.Recall(t.Context()); err != nil || asked.Load() == 0 {
			t.Errorf("afterwards, %d are read, %v", asked.Load(), err)
		}
	})
}

// TestMemoryAgreesWithEntries: what is remembered agrees with the entries.
func TestMemoryAgreesWithEntries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c", "d", "e", "f"}
	some := func() []string {
		var list []string
		for _, name := range names {
			if rnd.IntN(3) == 0 {
				list = append(list, name)
			}
		}
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var m Memory
	entries := make(map[string]*Entry)
	for range 2000 {
		id := fmt.Sprint(rnd.IntN(20))
		if rnd.IntN(4) == 0 {
			m.drop(id)
			delete(entries, id)
		} else {
			paid := now.Add(time.Duration(rnd.IntN(9)-4) * time.Nanosecond)
			e := &Entry{
				ID: id, Names: append(some(), names[rnd.IntN(len(names))]), Maybe: some(), Covered: some(), Issued: rnd.IntN(2),
				State: []State{Asked, Open, Issued, Gone}[rnd.IntN(4)], Adopted: rnd.IntN(4) == 0,
				Term: vendors.Term{Years: 1}, Paid: paid, Ends: now.Add(time.Duration(rnd.IntN(5)-2) * time.Nanosecond),
			}
			if e.State == Issued {
				e.Issued = 1
			}
			if rnd.IntN(3) == 0 {
				e.Flag = new(Flag)
			}
			if e.State == Issued || rnd.IntN(2) == 0 {
				e.Certificate = &Certificate{Serial: fmt.Sprint(rnd.IntN(3)), Reference: fmt.Sprint(rnd.IntN(3)), NotAfter: now.Add(time.Duration(rnd.IntN(5)))}
			}
			if have := entries[id]; have != nil {
				e.Revision = have.Revision
			}
			written := rnd.IntN(2) == 0
			entries[id] = e
			if got := m.put(e, time.Now(), written); got != e {
				t.Fatalf("put returns %+v", got)
			}
		}
		var pending []*Entry
		var paid []time.Time
		tally := Tally{States: map[State]int{}}
		for _, e := range entries {
			switch {
			case e.State != Gone && e.Flag != nil:
				tally.Flagged++
			default:
				tally.States[e.State]++
				if e.State != Gone && e.Issued == 0 && (tally.Oldest.IsZero() || e.Paid.Before(tally.Oldest)) {
					tally.Oldest = e.Paid
				}
			}
			if e.State != Issued || e.Flag != nil {
				pending = append(pending, e)
			}
			if !e.Adopted && e.Paid.After(now) {
				paid = append(paid, e.Paid)
			}
		}
		got := m.Tally()
		maps.DeleteFunc(got.States, func(_ State, n int) bool { return n == 0 })
		if !reflect.DeepEqual(got, tally) {
			t.Fatalf("tally %v, want %v", got, tally)
		}
		sortNewest(pending)
		if got := m.Pending(); !slices.Equal(got, pending) {
			t.Fatalf("pending %v, want %v", got, pending)
		}
		slices.SortFunc(paid, time.Time.Compare)
		for nth := range len(paid) + 1 {
			n, at := m.Spending(now, nth)
			if n != len(paid) || nth < n && !at.Equal(paid[n-1-nth]) {
				t.Fatalf("%d purchases, number %d at %s, want %v", n, nth, at, paid)
			}
		}
		until := now.Add(time.Nanosecond)
		var ending []EndingTerm
		for _, id := range slices.Sorted(maps.Keys(entries)) {
			e := entries[id]
			if e.State == Gone || !e.Ends.Equal(until) {
				continue
			}
			b := EndingTerm{ID: id, Paid: e.Paid, Ends: e.Ends}
			for _, name := range names {
				follows := func(other *Entry) bool { return other.State != Gone && other.Speaks(name) && other.Ends.After(e.Ends) }
				if e.Speaks(name) && !slices.ContainsFunc(slices.Collect(maps.Values(entries)), follows) {
					b.Names = append(b.Names, name)
				}
			}
			if b.Names != nil {
				ending = append(ending, b)
			}
		}
		same := func(a, b EndingTerm) bool {
			return a.ID == b.ID && a.Paid.Equal(b.Paid) && a.Ends.Equal(b.Ends) && slices.Equal(a.Names, b.Names)
		}
		if got := m.Ending(now, until); !slices.EqualFunc(got, ending, same) {
			t.Fatalf("ending %v, want %v", got, ending)
		}
		for _, name := range names {
			var about, serving []*Entry
			var expires, ends time.Time
			given := false
			for _, e := range entries {
				if slices.Contains(slices.Concat(e.Names, e.Maybe, e.Covered), name) {
					about = append(about, e)
					given = given || e.Certificate != nil && e.Certificate.Serial == "1"
					if e.State != Gone && e.Speaks(name) {
						ends = latest(ends, e.Ends)
						if e.Certificate != nil {
							expires = latest(expires, e.Certificate.NotAfter)
						}
					}
					if e.State != Gone && !e.Over(now) && e.Speaks(name) {
						serving = append(serving, e)
					}
				}
			}
			sortNewest(about)
			sortNewest(serving)
			same := func(b *Brief, e *Entry) bool {
				gave := e.Certificate != nil && e.Certificate.Serial == "1"
				whole := b.Entry == e || b.Entry == nil && e.State == Issued && e.Flag == nil
				return b.ID == e.ID && b.State() == e.State && b.Gave("1") == gave && b.PaidAfter(now) == e.Paid.After(now) && whole
			}
			got := m.About(name)
			if !slices.EqualFunc(got, about, same) || m.Knows(name) != (len(about) > 0) || m.HasSerial(name, "1") != given {
				t.Fatalf("about %s: %v, want %v", name, got, about)
			}
			if certificate, term := m.Lasts(name); !certificate.Equal(expires) || !term.Equal(ends) {
				t.Fatalf("%s lasts until %s and %s, want %s and %s", name, certificate, term, expires, ends)
			}
			got = slices.DeleteFunc(got, func(b *Brief) bool { return !b.Serves(name, now) })
			if !slices.EqualFunc(got, serving, same) {
				t.Fatalf("for %s: %v, want %v", name, got, serving)
			}
		}
	}
	for id := range entries {
		m.drop(id)
	}
	if len(m.entries)+len(m.byName)+len(m.more)+len(m.whole)+len(m.behind)+len(m.paid) > 0 {
		t.Errorf("something is left: %+v", &m)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestRequested: requests are found by the contents of the entries.
func TestRequested(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	e := stored(1)
	e.Attempt.Reference, e.Certificate.Reference = "reissue", "order"
	create(t, l, e)
	pending := create(t, l, asked(l, "example.com"))
	for range 2 {
		got, err := l.Requested(t.Context(), []string{"reissue", "order", "r-example.com", "none"})
		if err != nil || len(got["order"]) != 1 || got["order"][0].ID != e.ID || len(got["r-example.com"]) != 1 || got["r-example.com"][0] != pending || len(got["none"]) != 0 {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := l.Load(t.Context(), e.ID); err != nil { // from now on it is not kept in full
			t.Fatal(err)
		}
	}
	storage.hook = func(string, string) error { return errors.New("unreachable") }
	if got, err := l.Requested(t.Context(), []string{"order"}); err == nil {
		t.Errorf("no error although the storage cannot be read: %v", got)
	}
}

// TestCertified: what is remembered about an order shows whether it is among those that are checked,
// in which part, and by which ID the vendor knows it.
func TestCertified(t *testing.T) {
	l := &Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(Memory)}
	now := stored(0).Paid.Add(time.Hour)
	lost, flagged, open, over := stored(100), stored(101), stored(102), stored(103)
	lost.Certificate.Lost = true
	flagged.Flag = &Flag{Reason: "x"}
	open.State = Open
	over.Ends = now.Add(-time.Minute)
	for _, e := range []*Entry{lost, flagged, open, over} {
		if err := l.Create(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	const n, parts = 64, 4
	for i := range n {
		if err := l.Create(t.Context(), stored(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.Memory = new(Memory)
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for part := range parts {
		ids := l.Memory.Certified(now, part, parts)
		if len(ids) < n/parts/4 {
			t.Errorf("%d of %d are in part %d", len(ids), n, part)
		}
		for _, id := range ids {
			seen[id] = true
		}
	}
	if len(seen) != n || seen[lost.ID] || seen[flagged.ID] || seen[open.ID] || seen[over.ID] {
		t.Errorf("%d are checked", len(seen))
	}
	got := l.Memory.Ordered(now, []string{stored(7).OrderID, lost.OrderID, "none"})
	if !slices.Equal(got, []string{stored(7).ID}) {
		t.Errorf("%q", got)
	}
	if !l.Memory.HasLost(lost.Names[0], lost.Certificate.Serial) || l.Memory.HasLost(lost.Names[0], "x") || l.Memory.HasLost(stored(7).Names[0], stored(7).Certificate.Serial) {
		t.Error("the wrong certificate is lost")
	}
	if pending := l.Memory.Pending(); !slices.ContainsFunc(pending, func(e *Entry) bool { return e.ID == lost.ID }) {
		t.Error("an entry that has lost its certificate is not pending")
	}
}

// TestTurns: turns that are lost or damaged count as none.
func TestTurns(t *testing.T) {
	l := &Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(Memory)}
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	set := func(turns *Turns) { turns.Parts, turns.Since = append(turns.Parts, at), at }
	for want := range 3 {
		if turns, err := l.Turns(t.Context()); err != nil || len(turns.Parts) != want || want > 0 && !turns.Since.Equal(at) {
			t.Errorf("%+v, %v", turns, err)
		}
		if err := l.SetTurns(t.Context(), set); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Storage.Store(t.Context(), "commercial/a/b/watch.json", []byte(`{"parts":["x"]}`)); err != nil {
		t.Fatal(err)
	}
	if turns, err := l.Turns(t.Context()); err != nil || len(turns.Parts) != 0 {
		t.Errorf("%+v, %v", turns, err)
	}
}

// TestSweepKeepsLostCertificates: a useless certificate may be served long after its order was given up.
func TestSweepKeepsLostCertificates(t *testing.T) {
	now := stored(0).Paid.Add(time.Hour)
	l := &Ledger{Storage: newMemStorage(), Prefix: "commercial/a/b", Memory: new(Memory), Now: func() time.Time { return now }}
	for i := range 2 {
		e := stored(i)
		e.State, e.Certificate.Lost = Gone, i == 0
		if err := l.Create(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for after, want := range []int{2, 1, 0} {
		now = []time.Time{now, now.Add(10 * 24 * time.Hour), stored(0).Ends.Add(10 * 24 * time.Hour)}[after]
		if err := l.Sweep(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := len(l.Memory.All()); got != want {
			t.Errorf("%d entries after %s, want %d", got, now, want)
		}
	}
}
