package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// testLedger returns the ledger of one process; several may share a storage.
func testLedger(storage *memStorage) *Ledger {
	return &Ledger{Storage: storage, Prefix: Prefix("racent", "portal.example/shop"), Memory: new(Memory)}
}

// asked returns an entry for a year, as it is before the paid call.
func asked(l *Ledger, names ...string) *Entry {
	now := l.Time()
	return &Entry{
		ID: l.NewID(), Names: names, State: Asked, Term: vendors.Term{Years: 1}, Paid: now, Ends: now.AddDate(1, 0, 0),
		Attempt: Attempt{Kind: KindOrder, Reference: "r-" + names[0], Started: now, AbsenceAge: time.Minute},
	}
}

func create(t *testing.T, l *Ledger, e *Entry) *Entry {
	t.Helper()
	if err := l.Create(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

func placed(id string) func(*Entry) {
	return func(e *Entry) { e.State, e.OrderID, e.RootID = Open, id, id }
}

func issued(serial string) func(*Entry) {
	return func(e *Entry) {
		e.State, e.Covered, e.Issued = Issued, e.Names, e.Issued+1
		e.Certificate = &Certificate{Serial: serial}
	}
}

func TestTransitionsAreDrawn(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for state, nexts := range transitions {
		line := fmt.Sprintf("//\t%s ->", state)
		for _, next := range nexts {
			line += " " + string(next)
			if transitions[next] == nil {
				t.Errorf("state %q leads to the unknown %q", state, next)
			}
		}
		if !strings.Contains(string(doc), line+"\n") {
			t.Errorf("the diagram in doc.go lacks the line %q", line)
		}
		if len(nexts) == 0 {
			t.Errorf("state %q has no way out", state)
		}
	}
	if n := strings.Count(string(doc), " -> "); n != len(transitions) {
		t.Errorf("the diagram has %d lines, but there are %d states", n, len(transitions))
	}
}

// TestDiagramForPeople compares the diagram of docs/money.md with the table.
func TestDiagramForPeople(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "money.md"))
	if err != nil {
		t.Fatal(err)
	}
	var drawn, want []string
	for _, step := range regexp.MustCompile(`(?m)^    (\w+ --> \w+): .`).FindAllSubmatch(page, -1) {
		drawn = append(drawn, string(step[1]))
	}
	for from, nexts := range transitions {
		for _, to := range nexts {
			want = append(want, fmt.Sprintf("%s --> %s", from, to))
		}
	}
	slices.Sort(drawn)
	slices.Sort(want)
	if !slices.Equal(drawn, want) {
		t.Errorf("the diagram has %q, but the table has %q", drawn, want)
	}
}

func TestWriteRefusesIllegalSteps(t *testing.T) {
	l := testLedger(newMemStorage())
	e := create(t, l, asked(l, "example.com"))
	if _, err := l.Write(t.Context(), e, func(e *Entry) { e.State = Open }); err == nil || !strings.Contains(err.Error(), "without an order ID") {
		t.Errorf("error = %v", err)
	}
	e, err := l.Write(t.Context(), e, placed("1"))
	if err != nil {
		t.Fatal(err)
	}
	revision := e.Revision
	if _, err := l.Write(t.Context(), e, func(e *Entry) { e.State = Asked }); err == nil || !strings.Contains(err.Error(), `cannot go from "open" to "asked"`) {
		t.Errorf("error = %v", err)
	}
	if e.Revision != revision || e.State != Open {
		t.Errorf("a write that failed changed what was read: %+v", e)
	}
	if stored, err := testLedger(l.Storage.(*memStorage)).Load(t.Context(), e.ID); err != nil || stored.State != Open || stored.Revision != revision {
		t.Errorf("stored %+v, %v", stored, err)
	}
}

func TestConflict(t *testing.T) {
	storage := newMemStorage()
	mine, theirs := testLedger(storage), testLedger(storage)
	e := create(t, mine, asked(mine, "example.com"))
	seen, err := theirs.Load(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write(t.Context(), seen, func(e *Entry) { e.Problem = "theirs" }); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Write(t.Context(), e, func(e *Entry) { e.Problem = "mine" }); !errors.Is(err, ErrConflict) {
		t.Fatalf("the second writer got %v", err)
	}
	if stored, err := mine.Load(t.Context(), e.ID); err != nil || stored.Problem != "theirs" {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if err := theirs.Delete(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Write(t.Context(), e, func(*Entry) {}); !errors.Is(err, ErrConflict) {
		t.Errorf("writing what was removed: %v", err)
	}
}

// TestAnswerWins: a vendor's answer is kept, whatever others have done to the entry meanwhile.
func TestAnswerWins(t *testing.T) {
	for name, c := range map[string]struct {
		others func(t *testing.T, l *Ledger, e *Entry) // what another process does before
		want   State
		id     string
	}{
		"undisturbed":      {func(*testing.T, *Ledger, *Entry) {}, Open, "1"},
		"over a guess":     {write(func(e *Entry) { e.State = Gone }), Open, "1"},
		"over a flag":      {write(func(e *Entry) { e.Flag = &Flag{Reason: "lost"} }), Open, "1"},
		"over a removal":   {remove, Open, "1"},
		"not over a peer":  {write(placed("1"), issued("a")), Issued, "1"},
		"over another one": {write(placed("2")), Open, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			storage := newMemStorage()
			mine, theirs := testLedger(storage), testLedger(storage)
			e := create(t, mine, asked(mine, "example.com"))
			c.others(t, theirs, e)
			got, err := mine.Answer(t.Context(), e, placed("1"))
			if err != nil {
				t.Fatal(err)
			}
			stored, err := testLedger(storage).Load(t.Context(), e.ID)
			if err != nil || stored.State != c.want || stored.OrderID != c.id || got.State != c.want {
				t.Errorf("stored %+v, returned %+v, %v; want %s, order %s", stored, got, err, c.want, c.id)
			}
		})
	}
}

func write(changes ...func(*Entry)) func(*testing.T, *Ledger, *Entry) {
	return func(t *testing.T, l *Ledger, e *Entry) {
		t.Helper()
		e, err := l.Load(t.Context(), e.ID)
		for _, change := range changes {
			if err == nil {
				e, err = l.Write(t.Context(), e, change)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, l *Ledger, e *Entry) {
	t.Helper()
	if err := l.Delete(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
}

// TestAnswerIsStoredAnew: a storage that fails for a moment does not lose an answer.
func TestAnswerIsStoredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		l := testLedger(storage)
		e := create(t, l, asked(l, "example.com"))
		failures := 3
		storage.hook = func(call, _ string) error {
			if failures--; call == "store" && failures >= 0 {
				return errors.New("disk full")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the configuration ends meanwhile
		if _, err := l.Answer(ctx, e, placed("1")); err != nil {
			t.Fatal(err)
		}
		if stored, err := testLedger(storage).Load(t.Context(), e.ID); err != nil || stored.OrderID != "1" {
			t.Errorf("stored %+v, %v", stored, err)
		}
	})
}

// TestDamagedEntries: an entry that cannot be read is reported with its key; the others are still known.
func TestDamagedEntries(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"truncated":       func(s string) string { return s[:len(s)/2] },
		"empty":           func(string) string { return "" },
		"garbage":         func(string) string { return "\x00\xff not JSON" },
		"null":            func(string) string { return "null" },
		"newer version":   func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 3`, 1) },
		"no version":      func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 0`, 1) },
		"unknown state":   func(s string) string { return strings.Replace(s, `"open"`, `"pondering"`, 1) },
		"no order":        func(s string) string { return strings.Replace(s, `"order_id"`, `"disorder_id"`, 1) },
		"no names":        func(s string) string { return strings.Replace(s, `"names"`, `"games"`, 1) },
		"no term":         func(s string) string { return strings.Replace(s, `"ends"`, `"fends"`, 1) },
		"another's ID":    func(s string) string { return strings.Replace(s, `"id": "`, `"id": "x`, 1) },
		"no certificate":  func(s string) string { return strings.Replace(s, `"open"`, `"issued"`, 1) },
		"ID with a slash": func(s string) string { return strings.Replace(s, `"id": "`, `"id": "../`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			storage := newMemStorage()
			l := testLedger(storage)
			e, err := l.Write(t.Context(), create(t, l, asked(l, "example.com")), placed("1"))
			if err != nil {
				t.Fatal(err)
			}
			create(t, l, asked(l, "example.net"))
			key := l.key(e.ID)
			whole := storage.data[key]
			if storage.data[key] = damage(whole); storage.data[key] == whole {
				t.Fatal("nothing was damaged")
			}
			other := testLedger(storage)
			err = other.Refresh(t.Context())
			if damaged, ok := errors.AsType[*DamagedEntryError](err); !ok || damaged.Key != key || !strings.Contains(err.Error(), key) {
				t.Errorf("error = %v", err)
			}
			if !other.Memory.Knows("example.net") {
				t.Error("the other entry is not known")
			}
			storage.data[key] = whole
			if err := other.Refresh(t.Context()); err != nil || !other.Memory.Knows("example.com") {
				t.Errorf("after the repair: %v", err)
			}
		})
	}
}

// TestRefresh: Refresh reads only what is new, forgets what is gone, and fails if it cannot find out.
func TestRefresh(t *testing.T) {
	storage := newMemStorage()
	mine, theirs := testLedger(storage), testLedger(storage)
	var loads atomic.Int32
	if err := theirs.Refresh(t.Context()); err != nil || !theirs.Memory.Listed() {
		t.Fatalf("empty storage: %v", err)
	}
	a := create(t, mine, asked(mine, "a.example.com"))
	create(t, mine, asked(mine, "b.example.com"))
	storage.hook = func(call, _ string) error {
		if call == "load" {
			loads.Add(1)
		}
		return nil
	}
	for range 3 {
		if err := theirs.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if loads.Load() != 2 || len(theirs.Memory.All()) != 2 {
		t.Errorf("%d loads, %d entries", loads.Load(), len(theirs.Memory.All()))
	}
	remove(t, mine, a)
	if err := theirs.Refresh(t.Context()); err != nil || theirs.Memory.Knows("a.example.com") {
		t.Errorf("what was removed is still known (%v)", err)
	}
	create(t, mine, asked(mine, "c.example.com"))
	for _, broken := range []string{"list", "load"} {
		storage.hook = func(call, _ string) error {
			if call == broken {
				return errors.New("unreachable")
			}
			return nil
		}
		if err := theirs.Refresh(t.Context()); err == nil {
			t.Errorf("no error although the storage cannot %s", broken)
		}
	}
}

// TestRefreshIsShared: callers that come during a listing share the next one, because theirs must
// begin after they asked.
func TestRefreshIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		l := testLedger(storage)
		var lists atomic.Int32
		gate := make(chan struct{})
		storage.hook = func(call, _ string) error {
			if call == "list" {
				lists.Add(1)
				<-gate
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = l.Refresh(t.Context()) })
		synctest.Wait()
		// This is written after the first listing began, which may or may not show it.
		create(t, testLedger(storage), asked(l, "example.com"))
		for range 20 {
			wg.Go(func() {
				if err := l.Refresh(t.Context()); err != nil || !l.Memory.Knows("example.com") {
					t.Errorf("a caller does not know what was stored before it asked (%v)", err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if n := lists.Load(); n != 2 {
			t.Errorf("%d listings for 21 callers, want 2", n)
		}
	})
}

// TestOutdatedStorage: a storage that is behind does not make a process forget what it knows.
func TestOutdatedStorage(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	e := create(t, l, asked(l, "example.com"))
	old := storage.data[l.key(e.ID)]
	if _, err := l.Write(t.Context(), e, placed("1")); err != nil {
		t.Fatal(err)
	}
	storage.data[l.key(e.ID)] = old
	if got, err := l.Load(t.Context(), e.ID); err != nil || got.OrderID != "1" {
		t.Errorf("loaded %+v, %v", got, err)
	}
}

func TestSweep(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l.Now = func() time.Time { return now }
	young := create(t, l, asked(l, "young.example.com"))
	gone, err := l.Write(t.Context(), create(t, l, asked(l, "gone.example.com")), func(e *Entry) { e.State = Gone })
	if err != nil {
		t.Fatal(err)
	}
	over := asked(l, "over.example.com")
	over.Ends = now.Add(24 * time.Hour)
	create(t, l, over)
	at := func(e *Entry) (stays, moved bool) {
		return storage.Exists(t.Context(), l.key(e.ID)), storage.Exists(t.Context(), path.Join(l.Prefix, past, e.ID+".json"))
	}
	for _, step := range []struct {
		after, spend     time.Duration
		goneAway, isOver bool
	}{
		{after: 2 * 24 * time.Hour},
		{after: 25 * time.Hour, spend: 30 * 24 * time.Hour},
		{goneAway: true},
		{after: 24 * time.Hour, goneAway: true, isOver: true},
	} {
		now = now.Add(step.after)
		if err := l.Sweep(t.Context(), step.spend); err != nil {
			t.Fatal(err)
		}
		for e, away := range map[*Entry]bool{young: false, gone: step.goneAway, over: step.isOver} {
			if stays, moved := at(e); stays == away || moved != away || l.Memory.Knows(e.Names[0]) == away {
				t.Errorf("after %s: %s stays %t, moved %t; want moved %t", step.after, e.Names[0], stays, moved, away)
			}
		}
	}
}

func TestKeysAndDrafts(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	ctx := t.Context()
	if _, err := l.Key(ctx, "r1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	if refs, err := l.Keys(ctx); err != nil || len(refs) != 0 {
		t.Errorf("keys %v, %v", refs, err)
	}
	if err := errors.Join(l.KeepKey(ctx, "r1", []byte("one")), l.KeepKey(ctx, "r2", []byte("two"))); err != nil {
		t.Fatal(err)
	}
	if pem, err := l.Key(ctx, "r1"); err != nil || string(pem) != "one" {
		t.Errorf("key %q, %v", pem, err)
	}
	if refs, err := l.Keys(ctx); err != nil || !slices.Equal(refs, []string{"r1", "r2"}) {
		t.Errorf("keys %v, %v", refs, err)
	}
	if err := errors.Join(l.ForgetKey(ctx, "r1"), l.ForgetKey(ctx, "r1"), l.ForgetDraft(ctx, "none")); err != nil {
		t.Errorf("forgetting: %v", err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l.Now = func() time.Time { return now }
	if err := l.KeepDraft(ctx, Draft{Reference: "d1", Names: []string{"example.com"}, Started: now}); err != nil {
		t.Fatal(err)
	}
	storage.data[l.draftFile("d2")] = "{"
	if left, err := l.LeftBehind(ctx); err != nil || len(left) != 0 {
		t.Errorf("a young draft counts as left behind: %v, %v", left, err)
	}
	now = now.Add(2 * time.Hour)
	if left, err := l.LeftBehind(ctx); err != nil || len(left) != 1 || left[0].Reference != "d1" {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := l.Refresh(ctx); err != nil || len(l.Memory.All()) != 0 {
		t.Errorf("keys and drafts are not entries: %v, %v", l.Memory.All(), err)
	}
}

func TestEscapeIsInjective(t *testing.T) {
	texts := []string{
		"", "a", "A", "_61", "a.b", "a..b", "a_2eb", ".a", "..", ".", "a/b", `a\b`, "a b", "a-b", "*.example.com", "_.example.com",
		"ä", "a\x00b", "portal.example/shop", "portal.example-shop", "portal.example_shop", "Portal.example/shop", "%2f", "a_b", "a__b",
	}
	seen := make(map[string]string)
	for _, text := range texts {
		got := Escape(text)
		if other, dup := seen[strings.ToLower(got)]; dup {
			t.Errorf("%q and %q both become %q", text, other, got)
		}
		seen[strings.ToLower(got)] = text
		if strings.ContainsAny(got, "/\\ *:") || strings.Contains(got, "..") || got == "." {
			t.Errorf("%q becomes %q, which is not a path component", text, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a", "A")
	f.Add("..", "_2e.")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a != b && Escape(a) == Escape(b) {
			t.Errorf("%q and %q both become %q", a, b, Escape(a))
		}
	})
}

// Of two writers that have not seen each other, one has its entry stored over that of the other, with
// the same revision. The other one does not write over what it has not read, once it sees that.
func TestWritersThatDoNotSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		mine, theirs := testLedger(storage), testLedger(storage)
		e := create(t, mine, asked(mine, "example.com"))
		time.Sleep(time.Second)
		e, err := mine.Write(t.Context(), e, placed("1"))
		if err != nil {
			t.Fatal(err)
		}
		seen := storage.data[mine.key(e.ID)]
		time.Sleep(time.Second)
		ours, err := mine.Write(t.Context(), e, func(e *Entry) { e.Problem = "ours" })
		if err != nil {
			t.Fatal(err)
		}
		storage.data[mine.key(e.ID)] = seen // theirs is shown late what was written
		time.Sleep(100 * time.Millisecond)
		if _, err := theirs.Write(t.Context(), e, func(e *Entry) { e.EndedByHand = Cancelled }); err != nil {
			t.Fatal(err)
		}
		if _, err := mine.Write(t.Context(), ours, func(e *Entry) { e.Problem = "" }); !errors.Is(err, ErrConflict) {
			t.Errorf("error = %v", err)
		}
		if now, err := mine.Load(t.Context(), e.ID); err != nil || now.EndedByHand != Cancelled {
			t.Errorf("%+v, %v", now, err)
		}
	})
}
