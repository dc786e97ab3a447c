package ledger

import (
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

const day = 24 * time.Hour

func TestBlocks(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	order := func(change func(*Entry)) *Entry {
		e := &Entry{
			ID: "1", Names: []string{"example.com"}, Maybe: []string{"www.example.com"}, State: Open, OrderID: "1",
			Paid: now, Ends: now.AddDate(1, 0, 0), Term: vendors.Term{Years: 1},
		}
		if change != nil {
			change(e)
		}
		return e
	}
	flagged := func(e *Entry) { e.Flag = &Flag{} }
	without := func(e *Entry) { e.State, e.Issued, e.Covered = Issued, 1, []string{"example.com"} }
	with := func(e *Entry) { e.State, e.Issued, e.Covered = Issued, 1, []string{"example.com", "www.example.com"} }
	for name, c := range map[string]struct {
		change func(*Entry)
		name   string
		margin time.Duration
		after  time.Duration
		want   bool
	}{
		"its name":                       {nil, "example.com", 30 * day, 0, true},
		"another name":                   {nil, "example.net", 30 * day, 0, false},
		"a prefix of its name":           {nil, "ample.com", 30 * day, 0, false},
		"asked, too":                     {func(e *Entry) { e.State, e.OrderID = Asked, "" }, "example.com", 30 * day, 0, true},
		"flagged, too":                   {flagged, "example.com", 30 * day, 0, true},
		"gone":                           {func(e *Entry) { e.State = Gone }, "example.com", 30 * day, 0, false},
		"before the margin":              {nil, "example.com", 30 * day, 334 * day, true},
		"within the margin":              {nil, "example.com", 30 * day, 335 * day, false},
		"a margin longer than the term":  {nil, "example.com", 1000 * day, 100 * day, true},
		"half of the term is the most":   {nil, "example.com", 1000 * day, 200 * day, false},
		"no margin":                      {nil, "example.com", 0, 364 * day, true},
		"over":                           {nil, "example.com", 0, 365 * day, false},
		"perhaps the twin":               {nil, "www.example.com", 30 * day, 23 * time.Hour, true},
		"the twin of a slow order":       {nil, "www.example.com", 30 * day, 25 * time.Hour, false},
		"the twin of a flagged order":    {flagged, "www.example.com", 30 * day, 0, false},
		"the twin that is not covered":   {without, "www.example.com", 30 * day, 0, false},
		"the twin that is covered":       {with, "www.example.com", 30 * day, 100 * day, true},
		"the name that is not covered":   {func(e *Entry) { with(e); e.Covered = []string{"www.example.com"} }, "example.com", 30 * day, 0, true},
		"asked for a reissue of the two": {func(e *Entry) { with(e); e.State = Asked }, "www.example.com", 30 * day, 100 * day, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := order(c.change).Blocks(c.name, c.margin, now.Add(c.after)); got != c.want {
				t.Errorf("blocks %t, want %t", got, c.want)
			}
		})
	}
}

func TestMemoryFollowsNames(t *testing.T) {
	l := testLedger(newMemStorage())
	e := asked(l, "example.com")
	e.Maybe = []string{"www.example.com"}
	e = create(t, l, e)
	e, err := l.Write(t.Context(), e, placed("1"))
	if err == nil {
		e, err = l.Write(t.Context(), e, issued("abc"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !l.Memory.HasSerial("example.com", "abc") || l.Memory.HasSerial("example.com", "abd") || l.Memory.HasSerial("example.net", "abc") {
		t.Error("serial numbers are mixed up")
	}
	found, err := l.About(t.Context(), "example.com", "www.example.com")
	if err != nil || len(found) != 1 || found[0].Revision != e.Revision {
		t.Errorf("about the names: %v, %v", found, err)
	}
	if found[0].Speaks("www.example.com") {
		t.Error("speaks for a name that the certificate does not cover")
	}
	remove(t, l, e)
	if l.Memory.Knows("example.com") || l.Memory.Knows("www.example.com") {
		t.Error("a removed entry is still known")
	}
}

func TestClaim(t *testing.T) {
	var m Memory
	release, ok := m.Claim([]string{"a", "b"})
	if !ok {
		t.Fatal("nothing was claimed")
	}
	if _, ok := m.Claim([]string{"b", "c"}); ok {
		t.Error("a name was claimed twice")
	}
	if other, ok := m.Claim([]string{"c"}); !ok {
		t.Error("a failed claim holds a name")
	} else {
		other()
	}
	release()
	release()
	if _, ok := m.Claim([]string{"a", "b"}); !ok {
		t.Error("a released name cannot be claimed")
	}
}

func TestSpending(t *testing.T) {
	l := testLedger(newMemStorage())
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l.Now = func() time.Time { return now }
	begin := now
	var want []time.Time
	for _, name := range []string{"a.example.com", "b.example.com", "c.example.com"} {
		now = now.Add(time.Hour)
		want = append(want, now)
		create(t, l, asked(l, name))
	}
	adopted := asked(l, "d.example.com")
	adopted.Adopted = true
	create(t, l, adopted)
	// The assumption that an entry has bought nothing may be wrong.
	if _, err := l.Write(t.Context(), l.Memory.About("b.example.com")[0].Entry, func(e *Entry) { e.State = Gone }); err != nil {
		t.Fatal(err)
	}
	for nth := range want {
		if n, at := l.Memory.Spending(begin, nth); n != 3 || !at.Equal(want[2-nth]) {
			t.Errorf("%d purchases, number %d at %s, want %s", n, nth, at, want[2-nth])
		}
	}
	for _, nth := range []int{-1, 2} {
		if n, at := l.Memory.Spending(want[0], nth); n != 2 || !at.IsZero() {
			t.Errorf("%d purchases since the first, number %d at %s", n, nth, at)
		}
	}
	// What was removed does not count.
	remove(t, l, l.Memory.About("b.example.com")[0].Entry)
	if n, at := l.Memory.Spending(begin, 1); n != 2 || !at.Equal(want[0]) {
		t.Errorf("%d purchases are left, the first at %s", n, at)
	}
}
