package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestResolve(t *testing.T) {
	flag := &Flag{Reason: "lost"}
	plain := func(e *Entry) {}
	open := func(e *Entry) { placed("old")(e); e.Flag = flag }
	done := func(e *Entry) { placed("old")(e); issued("a")(e) }
	reissue := func(e *Entry) {
		done(e)
		e.State, e.Attempt.Kind, e.Attempt.PreviousID, e.Flag = Asked, KindReissue, "old", flag
	}
	over := func(e *Entry) { done(e); e.Ends = e.Paid }
	gone := func(e *Entry) { e.State = Gone }
	for name, c := range map[string]struct {
		entry    func(*Entry)
		how      Resolution
		want     State
		id, root string
		adopted  bool // nothing is known of the CSR
		fail     string
	}{
		"lost order, there is none":       {plain, Resolution{None: true}, Gone, "", "", false, ""},
		"lost order, it is there":         {plain, Resolution{OrderID: "new"}, Open, "new", "new", false, ""},
		"lost reissue, there is none":     {reissue, Resolution{None: true}, Issued, "old", "old", false, ""},
		"lost reissue, it is there":       {reissue, Resolution{OrderID: "new"}, Open, "new", "old", false, ""},
		"dead order, given up":            {open, Resolution{None: true}, Gone, "old", "old", false, ""},
		"dead order, it is not dead":      {open, Resolution{OrderID: "old"}, Open, "old", "old", false, ""},
		"dead order, another one":         {open, Resolution{OrderID: "new"}, Open, "new", "new", true, ""},
		"issued order, given up":          {done, Resolution{None: true}, Gone, "old", "old", false, ""},
		"issued order, another one":       {done, Resolution{OrderID: "new"}, Open, "new", "new", true, ""},
		"over":                            {over, Resolution{None: true}, "", "", "", false, "no order for example.com is in force"},
		"gone already":                    {gone, Resolution{None: true}, "", "", "", false, "no order for example.com is in force"},
		"neither":                         {plain, Resolution{}, "", "", "", false, "either"},
		"both":                            {plain, Resolution{OrderID: "x", None: true}, "", "", "", false, "either"},
		"still on its way":                {func(e *Entry) { e.Attempt.AbsenceAge = 3 * time.Hour }, Resolution{None: true}, "", "", "", false, "may still be on its way"},
		"of another vendor":               {plain, Resolution{Vendor: "digicert", None: true}, "", "", "", false, "knows no order"},
		"with another ID than was wanted": {plain, Resolution{Entry: "nosuch", None: true}, "", "", "", false, "knows no order"},
	} {
		t.Run(name, func(t *testing.T) {
			storage := newMemStorage()
			l := testLedger(storage)
			e := asked(l, "example.com")
			e.Attempt.Started, e.Problem = e.Attempt.Started.Add(-2*time.Hour), "lost"
			c.entry(e)
			create(t, l, e)
			before := storage.data[l.key(e.ID)]
			got, err := Resolve(t.Context(), storage, "example.com", c.how)
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Errorf("error = %v, want one with %q", err, c.fail)
				}
				if storage.data[l.key(e.ID)] != before {
					t.Error("the entry was changed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.State != c.want || got.OrderID != c.id || got.RootID != c.root || got.Problem != "" || got.Flag != nil {
				t.Errorf("entry %+v; want %s, order %q, root %q", got, c.want, c.id, c.root)
			}
			if (got.Attempt.Kind == KindAdoption) != c.adopted {
				t.Errorf("the attempt is %+v", got.Attempt)
			}
			if stored, err := testLedger(storage).Load(t.Context(), e.ID); err != nil || stored.State != c.want {
				t.Errorf("stored %v, %v", stored, err)
			}
		})
	}
}

func TestResolveFindsTheRightOrder(t *testing.T) {
	storage := newMemStorage()
	ids := make(map[string]string)
	for _, vendor := range []string{"racent", "digicert"} {
		l := &Ledger{Storage: storage, Prefix: Prefix(vendor, "a"), Memory: new(Memory)}
		e := asked(l, "example.com")
		e.Attempt.AbsenceAge = 0
		create(t, l, e)
		ids[vendor] = e.ID
	}
	_, err := Resolve(t.Context(), storage, "example.com", Resolution{None: true})
	if err == nil || !strings.Contains(err.Error(), "several") || !strings.Contains(err.Error(), ids["racent"]) || !strings.Contains(err.Error(), ids["digicert"]) {
		t.Errorf("error = %v", err)
	}
	if _, err := Resolve(t.Context(), storage, "example.net", Resolution{None: true}); !errors.Is(err, ErrNothingToResolve) {
		t.Errorf("error = %v", err)
	}
	if got, err := Resolve(t.Context(), storage, "example.com", Resolution{Vendor: "digicert", None: true}); err != nil || got.ID != ids["digicert"] {
		t.Errorf("resolved %v, %v", got, err)
	}
	// Only one is left.
	if got, err := Resolve(t.Context(), storage, "example.com", Resolution{OrderID: "7"}); err != nil || got.ID != ids["racent"] || got.OrderID != "7" {
		t.Errorf("resolved %v, %v", got, err)
	}
	// Of several, the one that asks for a person is meant.
	l := &Ledger{Storage: storage, Prefix: Prefix("racent", "b"), Memory: new(Memory)}
	e := asked(l, "example.com")
	e.Attempt.AbsenceAge, e.Flag = 0, &Flag{Reason: "lost"}
	create(t, l, e)
	if got, err := Resolve(t.Context(), storage, "example.com", Resolution{None: true}); err != nil || got.ID != e.ID {
		t.Errorf("resolved %v, %v", got, err)
	}
}

// A damaged entry does not keep a person from settling another one, but what cannot be read at
// all is not taken for nothing.
func TestResolveBesideWhatCannotBeRead(t *testing.T) {
	storage := newMemStorage()
	l := testLedger(storage)
	e := asked(l, "example.com")
	e.Attempt.AbsenceAge = 0
	create(t, l, e)
	storage.data[l.key("broken")] = "{"
	storage.hook = func(call, _ string) error {
		if call == "load" {
			return errors.New("unreachable")
		}
		return nil
	}
	if _, err := Resolve(t.Context(), storage, "example.com", Resolution{None: true}); err == nil || errors.Is(err, ErrNothingToResolve) {
		t.Errorf("error = %v", err)
	}
	storage.hook = nil
	if got, err := Resolve(t.Context(), storage, "example.com", Resolution{None: true}); err != nil || got.State != Gone {
		t.Errorf("resolved %v, %v", got, err)
	}
}
