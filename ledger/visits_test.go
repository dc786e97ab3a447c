package ledger

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"
	"testing"
	"time"
)

var visitsBegin = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// visitors returns n visits to a server, one second apart.
func visitors(server string, first, n int) (list []Visit) {
	for i := range n {
		list = append(list, Visit{
			Time: visitsBegin.Add(time.Duration(first+i) * time.Second), Host: "example.com", From: "192.0.2.1",
			Server: server, UserAgent: "CA", Status: 200,
		})
	}
	return list
}

func seconds(list []Visit) (at []int) {
	for _, v := range list {
		at = append(at, int(v.Time.Sub(visitsBegin)/time.Second))
	}
	return at
}

// visited stores a pending order for whose files two servers have been asked.
func visited(t *testing.T, l *Ledger) *Entry {
	t.Helper()
	e := asked(l, "example.com")
	e.Attempt.Reference = "cc01"
	e, err := l.Write(t.Context(), create(t, l, e), func(e *Entry) {
		e.Attempt.AddVisits(visitors("one.example", 1, 2), 2)
	})
	if err != nil {
		t.Fatal(err)
	}
	for server, list := range map[string][]Visit{"one.example": visitors("one.example", 2, 2), "two.example": visitors("two.example", 0, 1)} {
		if err := l.KeepVisits(t.Context(), "cc01", server, list, uint64(len(list))); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func TestVisits(t *testing.T) {
	storage := newMemStorage()
	mine := testLedger(storage)
	id := visited(t, mine).ID
	if err := mine.KeepVisits(t.Context(), "cc011", "one.example", visitors("one.example", 9, 1), 1); err != nil {
		t.Fatal(err)
	}
	l := testLedger(storage) // that of any server
	e, err := l.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Visits(t.Context(), e)
	if want := []int{0, 1, 2, 3}; err != nil || !reflect.DeepEqual(seconds(got), want) || got[0].Server != "two.example" {
		t.Errorf("got %v, %v", got, err)
	}

	storage.data[l.visitsFile("cc01", "two.example")] = "{"
	if got, err := l.Visits(t.Context(), e); err != nil || len(got) != 3 {
		t.Errorf("beside a damaged file: %v, %v", got, err)
	}
	broken := errors.New("no connection")
	storage.hook = func(_, key string) error {
		if strings.Contains(key, "two.example") {
			return broken
		}
		return nil
	}
	if got, err := l.Visits(t.Context(), e); !errors.Is(err, broken) || len(got) != 3 {
		t.Errorf("beside a file that cannot be read: %v, %v", got, err)
	}
	storage.hook = func(string, string) error { return broken }
	if got, err := l.Visits(t.Context(), e); !errors.Is(err, broken) || len(got) != 2 {
		t.Errorf("without the storage: %v, %v", got, err)
	}
}

// TestKeepVisits: the newest visits of a server are kept, and the total number.
func TestKeepVisits(t *testing.T) {
	l := testLedger(newMemStorage())
	for i := range 3 {
		if err := l.KeepVisits(t.Context(), "../../cc/02", "Server/1", visitors("one", i*40, 40), 1000); err != nil {
			t.Fatal(err)
		}
	}
	data := l.Storage.(*memStorage).data
	for key := range data {
		if path.Dir(key) != path.Join(l.Prefix, visits) {
			t.Errorf("kept at %s", key)
		}
	}
	v, err := l.readVisits(t.Context(), l.visitsFile("../../cc/02", "Server/1"))
	if err != nil || len(data) != 1 || v.Total != 3000 || len(v.Newest) != maxVisits || seconds(v.Newest)[maxVisits-1] != 119 {
		t.Errorf("%d files, %+v, %v", len(data), v, err)
	}
}

// TestAddVisits: an entry keeps only a few visits, whatever a server, or the next one, reports again.
func TestAddVisits(t *testing.T) {
	var a Attempt
	for _, step := range []struct {
		newest []Visit
		total  uint64
		want   string
	}{
		{nil, 0, "<nil>"},
		{visitors("one", 0, 3), 5, "5 [0 1 2]"},
		{visitors("one", 0, 3), 5, "5 [0 1 2]"},
		{visitors("one", 0, 5), 7, "7 [0 1 2 3 4]"},
		{visitors("two", 2, 1), 1, "8 [0 1 2 2 3 4]"},
		{visitors("one", 7, 1), 1, "9 [0 1 2 2 3 4 7]"}, // the server was restarted
		{visitors("one", 8, 64), 65, "73 [56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71]"},
	} {
		before := a.Visits
		was := fmt.Sprint(before)
		a.AddVisits(step.newest, step.total)
		got := "<nil>"
		if a.Visits != nil {
			got = fmt.Sprint(a.Visits.Total, seconds(a.Visits.Newest))
		}
		if got != step.want {
			t.Errorf("got %s, want %s", got, step.want)
		}
		if fmt.Sprint(before) != was {
			t.Error("data that others may read was changed")
		}
	}
}

// TestMemoryLeavesVisitsOut: memory does not keep the visits of an order that is finished, and no
// write loses them.
func TestMemoryLeavesVisitsOut(t *testing.T) {
	l := testLedger(newMemStorage())
	e := visited(t, l)
	for _, change := range []func(*Entry){placed("1"), issued("2")} {
		var err error
		if e, err = l.Write(t.Context(), e, change); err != nil {
			t.Fatal(err)
		}
	}
	known := l.Memory.about("example.com")[0].Entry
	if known == nil || known.Attempt.Visits != nil || e.Attempt.Visits == nil {
		t.Fatalf("memory has %+v", known)
	}
	e, err := l.Write(t.Context(), known, func(e *Entry) { e.Problem = "later" })
	if err != nil || e.Attempt.Visits == nil || e.Attempt.Visits.Total != 2 {
		t.Errorf("written: %+v, %v", e, err)
	}
}

// TestSweepRemovesVisits: the files of visits are removed with the entry, and those without an entry
// after a day.
func TestSweepRemovesVisits(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	now := visitsBegin
	l.Now = func() time.Time { return now }
	e := visited(t, l)
	e, err := l.Write(t.Context(), e, placed("1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.KeepVisits(t.Context(), "cc02", "one.example", visitors("one", 0, 1), 1); err != nil {
		t.Fatal(err)
	}
	storage.data[l.visitsFile("cc03", "one.example")] = "{"
	left := func() (files string) {
		for _, reference := range []string{"cc01", "cc02", "cc03"} {
			for _, server := range []string{"one.example", "two.example"} {
				if storage.Exists(t.Context(), l.visitsFile(reference, server)) {
					files += reference + " "
				}
			}
		}
		return files
	}
	for i, step := range []struct {
		now  time.Time
		want string
	}{
		{visitsBegin.Add(time.Hour), "cc01 cc01 cc02 cc03 "}, // the ledger has not been listed
		{visitsBegin.Add(time.Hour), "cc01 cc01 cc02 "},
		{visitsBegin.Add(25 * time.Hour), "cc01 cc01 "},
		{visitsBegin.Add(49 * time.Hour), "cc01 cc01 "}, // it is issued
		{e.Ends.Add(keepOver + time.Hour), ""},
	} {
		now = step.now
		switch i {
		case 1:
			if err := l.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 3:
			if _, err := l.Write(t.Context(), e, func(e *Entry) {
				issued("2")(e)
				e.Certificate.Reference = e.Attempt.Reference
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Load(t.Context(), e.ID); err != nil { // from now on it is not kept in full
				t.Fatal(err)
			}
		}
		if err := l.Sweep(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != step.want {
			t.Errorf("left: %q, want %q", got, step.want)
		}
	}
	if !storage.Exists(t.Context(), path.Join(l.Prefix, past, e.ID+".json")) {
		t.Error("the entry is not in the past")
	}
}
