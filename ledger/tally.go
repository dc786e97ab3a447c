package ledger

import (
	"slices"
	"strings"
	"time"
)

// Tally counts the entries of a ledger.
type Tally struct {
	States map[State]int // but for those that ask a person

	// Flagged is how many ask a person.
	Flagged int

	// Oldest is when the oldest order was paid for, of those that wait for their first
	// certificate and ask nobody. Zero if there is none.
	Oldest time.Time
}

// Tally counts the entries that are known.
func (m *Memory) Tally() Tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := Tally{States: map[State]int{Issued: len(m.entries) - len(m.whole)}}
	for b := range m.whole {
		switch e := b.Entry; {
		case e.Flag != nil && e.State != Gone:
			t.Flagged++
		default:
			t.States[e.State]++
			if e.Unissued() && (t.Oldest.IsZero() || e.Paid.Before(t.Oldest)) {
				t.Oldest = e.Paid
			}
		}
	}
	return t
}

// Lasts tells until when a name is provided for: when the last of its certificates expires, and
// when the last of its paid terms ends. Zero if there is none.
func (m *Memory) Lasts(name string) (certificate, term time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var expires, ends moment
	look := func(b *Brief) {
		if b != nil && b.State() != Gone && slices.Contains(b.names[:b.speaks], name) {
			expires, ends = max(expires, b.expires), max(ends, b.ends)
		}
	}
	look(m.byName[name])
	for _, b := range m.more[name] {
		look(b)
	}
	return expires.time(), ends.time()
}

// EndingTerm is a paid term that is about to end.
type EndingTerm struct {
	ID         string // of the entry
	Paid, Ends time.Time
	Names      []string // those for which no other order lasts longer
}

// Ending returns the terms that end after the first moment and no later than the second, and
// that have names for which no other order lasts longer, as far as is known, by ID.
func (m *Memory) Ending(from, until time.Time) (list []EndingTerm) {
	first, last := momentOf(from), momentOf(until)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.entries {
		if b.ends <= first || b.ends > last || b.State() == Gone {
			continue
		}
		var names []string
		for _, name := range b.names[:b.speaks] {
			if !slices.ContainsFunc(m.of(name), func(other *Brief) bool {
				return other.ends > b.ends && other.State() != Gone && slices.Contains(other.names[:other.speaks], name)
			}) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			list = append(list, EndingTerm{b.ID, b.paid.time(), b.ends.time(), names})
		}
	}
	slices.SortFunc(list, func(a, b EndingTerm) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// time returns the moment as a time. The zero value is the zero time.
func (m moment) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(m))
}
