package ledger

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is what a process remembers of one account's ledger. It outlives configurations.
// The zero value is empty and ready for use.
type Memory struct {
	mu      sync.Mutex
	entries map[string]known    // by ID
	byName  map[string][]string // IDs of the entries that speak for a name
	claims  map[string]struct{} // names that this process is about to buy for
	listing *listing
	listed  bool
}

// known is an entry as it was last read. It is shared and never changed.
type known struct {
	*Entry
	read time.Time // monotonic
}

// put remembers an entry, as it was at a moment, and returns what is known of it now.
func (m *Memory) put(e *Entry, read time.Time) *Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.entries[e.ID]; ok {
		if have.Revision > e.Revision {
			return have.Entry
		}
		m.unlink(have.Entry)
	}
	if m.entries == nil {
		m.entries, m.byName = make(map[string]known), make(map[string][]string)
	}
	m.entries[e.ID] = known{e, read}
	for _, name := range e.spokenNames() {
		if ids := m.byName[name]; !slices.Contains(ids, e.ID) {
			m.byName[name] = append(ids, e.ID)
		}
	}
	return e
}

func (m *Memory) drop(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.entries[id]; ok {
		m.unlink(have.Entry)
		delete(m.entries, id)
	}
}

func (m *Memory) unlink(e *Entry) {
	for _, name := range e.spokenNames() {
		ids := slices.DeleteFunc(m.byName[name], func(id string) bool { return id == e.ID })
		if len(ids) == 0 {
			delete(m.byName, name)
		} else {
			m.byName[name] = ids
		}
	}
}

// spokenNames are all names that the entry may speak for.
func (e *Entry) spokenNames() []string {
	names := slices.Concat(e.Names, e.Maybe, e.Covered)
	slices.Sort(names)
	return slices.Compact(names)
}

// about returns the entries that may speak for one of the names, newest first.
func (m *Memory) about(names ...string) []*Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*Entry
	for _, name := range names {
		for _, id := range m.byName[name] {
			e := m.entries[id].Entry
			if !slices.Contains(found, e) {
				found = append(found, e)
			}
		}
	}
	sortNewest(found)
	return found
}

// All returns the entries that are known, newest first. They must not be changed.
func (m *Memory) All() []*Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*Entry, 0, len(m.entries))
	for _, e := range m.entries {
		list = append(list, e.Entry)
	}
	sortNewest(list)
	return list
}

func sortNewest(list []*Entry) {
	slices.SortFunc(list, func(a, b *Entry) int {
		return cmp.Or(b.Ends.Compare(a.Ends), b.Paid.Compare(a.Paid), strings.Compare(b.ID, a.ID))
	})
}

// unknown returns which of the listed IDs must be read: those that are not known, and of
// those whose copy is old, the ones without a certificate, because the names that their
// first certificate covers are not known, and the flagged ones, because a person may have
// settled them. What is not listed any more is forgotten.
func (m *Memory) unknown(ids map[string]struct{}) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed = true
	for id, e := range m.entries {
		if _, listed := ids[id]; !listed {
			m.unlink(e.Entry)
			delete(m.entries, id)
		}
	}
	var want []string
	for id := range ids {
		if e, ok := m.entries[id]; !ok || (e.Unissued() || e.Flag != nil) && time.Since(e.read) > unissuedAge {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	return want
}

// unissuedAge is how old a copy of an entry without a certificate may be, or of one that is
// flagged.
const unissuedAge = 30 * time.Minute

// recallAge is how old a copy of an entry with a certificate may become before it is read
// again, and recallShare the part of all that is read again at a time, at least recallFew.
const (
	recallAge   = 6 * time.Hour
	recallShare = 36
	recallFew   = 20
)

// old returns some of the entries whose copies are old, the oldest first.
func (m *Memory) old() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []known
	for _, e := range m.entries {
		if time.Since(e.read) > recallAge {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b known) int { return a.read.Compare(b.read) })
	ids := make([]string, 0, len(list))
	for _, e := range list[:min(len(list), max(recallFew, len(m.entries)/recallShare))] {
		ids = append(ids, e.ID)
	}
	return ids
}

// Claim reserves names for a purchase of this process, or reports that one of them is
// reserved already. The claim ends with release.
func (m *Memory) Claim(names []string) (release func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if _, taken := m.claims[name]; taken {
			return nil, false
		}
	}
	if m.claims == nil {
		m.claims = make(map[string]struct{})
	}
	for _, name := range names {
		m.claims[name] = struct{}{}
	}
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, name := range names {
			delete(m.claims, name)
		}
	}), true
}

// Spending returns the times of the purchases that count from the given moment on, oldest
// first. What turned out to have bought nothing counts, too: it may be a wrong guess.
func (m *Memory) Spending(from time.Time) []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	var times []time.Time
	for _, e := range m.entries {
		if !e.Adopted && e.Paid.After(from) {
			times = append(times, e.Paid)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// listing is one listing of the ledger, for all that wait for it.
type listing struct {
	begun bool
	done  chan struct{}
	err   error
	next  *listing // begins when this one has ended
}

// Others returns the entries that may speak for one of the names, but for the one with the
// ID, and tells whether that one is there.
func (m *Memory) Others(names []string, id string, found *bool) []*Entry {
	list := m.about(names...)
	return slices.DeleteFunc(list, func(e *Entry) bool {
		if e.ID == id {
			*found = true
		}
		return e.ID == id
	})
}

// Listed reports whether the ledger has been listed by this process.
func (m *Memory) Listed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listed
}

// Knows reports whether an entry may speak for the name, as far as is known.
func (m *Memory) Knows(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byName[name]) > 0
}

// About returns the entries that may speak for the name, as far as they are known, newest
// first. They must not be changed.
func (m *Memory) About(name string) []*Entry { return m.about(name) }

// HasSerial reports whether an order for the name gave the certificate of that serial
// number as its latest.
func (m *Memory) HasSerial(name, serial string) bool {
	return slices.ContainsFunc(m.about(name), func(e *Entry) bool { return e.Certificate != nil && e.Certificate.Serial == serial })
}

// Flagged returns the entries that ask a person, as far as is known.
func (m *Memory) Flagged() []*Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Entry
	for _, e := range m.entries {
		if e.Flag != nil && e.State != Gone {
			list = append(list, e.Entry)
		}
	}
	sortNewest(list)
	return list
}

// Known returns what is known of the entry with the ID, or nil.
func (m *Memory) Known(id string) *Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries[id].Entry
}
