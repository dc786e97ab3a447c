package ledger

import (
	"cmp"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Memory is what a process remembers of one account's ledger. It outlives configurations.
// The zero value is empty and ready for use.
type Memory struct {
	mu      sync.Mutex
	entries map[string]*Brief    // by ID
	byName  map[string]*Brief    // by the names that they may speak for, one for each
	more    map[string][]*Brief  // the others of a name that has several
	whole   map[*Brief]time.Time // those with their Entry, and when it was read; monotonic
	behind  map[string]time.Time // IDs of those that the storage shows less of than it did, and since when
	paid    []moment             // when each was paid for, but for those bought elsewhere; oldest first
	claims  map[string]struct{}  // names that this process is about to buy for

	listing  *listing
	known    bool      // one was completed
	listings uint32    // begun so far
	first    time.Time // when the first one began; monotonic

	// recalled is the time since first up to which copies have been read again, by how often
	// each is.
	recalled map[time.Duration]time.Duration
}

// Brief is what is remembered of each entry. It is little, because there may be very many:
// what else stands in an entry is read when it is needed. It is shared and never changed.
type Brief struct {
	ID string

	// Entry is the whole entry, unless it is done with and stored: it has its certificate,
	// asks nobody, and the storage has shown it so.
	Entry *Entry

	names      []string // that it may speak for, first those that it does speak for
	speaks     uint16   // how many those are
	adopted    bool
	listed     uint32 // the latest listing that it was in, or written in; protected by Memory.mu
	revision   int64
	paid, ends moment
	expires    moment // of the latest certificate; zero if there is none
	order      uint64 // fingerprint of its ID
	serial     uint64 // fingerprint of that of the latest certificate
	reference  uint64 // fingerprint of that of the request that gave it
}

// moment is a time in nanoseconds since 1970. Times that are out of its range are the first or
// the last moment.
type moment int64

func momentOf(t time.Time) moment {
	switch year := t.Year(); {
	case year < 1700:
		return math.MinInt64
	case year > 2200:
		return math.MaxInt64
	}
	return moment(t.UnixNano())
}

// fingerprint stands for a text in little memory.
func fingerprint(text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text) // never fails; see its documentation
	return h.Sum64()
}

// done reports whether there is nothing to do for an entry but to use it.
func (e *Entry) done() bool { return e.State == Issued && e.Flag == nil && !e.LostCertificate() }

// brief is what is remembered of an entry.
func (e *Entry) brief() *Brief {
	names := slices.Concat(e.Names, e.Maybe, e.Covered)
	slices.Sort(names)
	names = slices.Compact(names)
	b := &Brief{
		ID: e.ID, Entry: e, names: make([]string, 0, len(names)),
		adopted: e.Adopted, revision: e.Revision, paid: momentOf(e.Paid), ends: momentOf(e.Ends),
	}
	for _, speaks := range []bool{true, false} {
		for _, name := range names {
			if e.Speaks(name) == speaks {
				b.names = append(b.names, name)
			}
		}
		if speaks {
			b.speaks = uint16(len(b.names)) //nolint:gosec // a certificate has hundreds of names at most
		}
	}
	if e.OrderID != "" {
		b.order = fingerprint(e.OrderID)
	}
	if c := e.Certificate; c != nil {
		b.serial, b.reference, b.expires = fingerprint(c.Serial), fingerprint(c.Reference), momentOf(c.NotAfter)
	}
	return b
}

// State is that of the entry.
func (b *Brief) State() State {
	if b.Entry == nil {
		return Issued
	}
	return b.Entry.State
}

// Serves reports whether the order is in force, and is, or may turn out to be, for the name.
func (b *Brief) Serves(name string, now time.Time) bool {
	return b.State() != Gone && momentOf(now) < b.ends && slices.Contains(b.names[:b.speaks], name)
}

// Gave reports whether the latest certificate has the serial number.
func (b *Brief) Gave(serial string) bool { return b.serial != 0 && b.serial == fingerprint(serial) }

// PaidAfter reports whether the order was paid for after the given time.
func (b *Brief) PaidAfter(t time.Time) bool { return b.paid > momentOf(t) }

// lateAtMost is how long a storage that shows less of an entry than it did before may be late.
// After that, what it shows counts: a slow writer has won, or a backup was restored.
const lateAtMost = 30 * time.Minute

// put remembers an entry as of a moment, and returns the newest that is known of it. That is
// nil if the storage is late and only a Brief of the newer one is left. An entry that this
// process has written stays whole, because the storage has not shown it yet.
func (m *Memory) put(e *Entry, read time.Time, written bool) *Entry {
	b := e.brief()
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.entries[e.ID]; have != nil {
		if have.revision > e.Revision && (have.Entry != nil || written || m.late(e.ID, read)) {
			return have.Entry
		}
		m.forget(have)
	}
	if m.entries == nil {
		m.entries, m.byName, m.more, m.whole = make(map[string]*Brief), make(map[string]*Brief), make(map[string][]*Brief), make(map[*Brief]time.Time)
	}
	b.listed = m.listings
	m.entries[b.ID] = b
	for _, name := range b.names {
		if m.byName[name] == nil {
			m.byName[name] = b
		} else {
			m.more[name] = append(m.more[name], b)
		}
	}
	if !e.Adopted {
		m.paid = slices.Insert(m.paid, m.paidUntil(b.paid), b.paid)
	}
	if e.done() && !written {
		b.Entry = nil
	} else {
		if e.done() && e.Attempt.Visits != nil {
			b.Entry = new(Entry)
			*b.Entry = *e
			b.Entry.Attempt.Visits = nil // nobody needs them until it is read again
		}
		m.whole[b] = read
	}
	return e
}

// late notes that the storage shows less of an entry than it did before, and reports whether it
// may just be late. The lock is held.
func (m *Memory) late(id string, read time.Time) bool {
	since, ok := m.behind[id]
	if !ok {
		if m.behind == nil {
			m.behind = make(map[string]time.Time)
		}
		m.behind[id] = read
	}
	return !ok || read.Sub(since) < lateAtMost
}

// paidUntil is how many were paid for until the moment. The lock is held.
func (m *Memory) paidUntil(t moment) int {
	return sort.Search(len(m.paid), func(i int) bool { return m.paid[i] > t })
}

// forget takes an entry out. The lock is held.
func (m *Memory) forget(b *Brief) {
	delete(m.entries, b.ID)
	delete(m.whole, b)
	delete(m.behind, b.ID)
	for _, name := range b.names {
		rest := slices.DeleteFunc(m.of(name), func(other *Brief) bool { return other == b })
		delete(m.byName, name)
		delete(m.more, name)
		if len(rest) > 0 {
			m.byName[name] = rest[0]
		}
		if len(rest) > 1 {
			m.more[name] = rest[1:]
		}
	}
	if !b.adopted {
		i := m.paidUntil(b.paid)
		m.paid = slices.Delete(m.paid, i-1, i)
	}
}

// of returns the entries that may speak for a name, in a list of its own. The lock is held.
func (m *Memory) of(name string) []*Brief {
	b := m.byName[name]
	if b == nil {
		return nil
	}
	return append([]*Brief{b}, m.more[name]...)
}

// drop forgets the entry with the ID.
func (m *Memory) drop(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.entries[id]; b != nil {
		m.forget(b)
	}
}

// begin begins a listing.
func (m *Memory) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listings++
	if m.first.IsZero() {
		m.first = time.Now()
	}
}

// compare returns the IDs of the listed entries that must be read: those that are not known,
// and, if the copy is old, those without a certificate, because the names that their first one
// covers are not known, and those that are flagged, because a person may have settled them.
// What is not listed any more is forgotten, unless it was written or read while the listing was
// made.
func (m *Memory) compare(keys []string) (unread []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		id, ok := strings.CutSuffix(path.Base(key), ".json")
		if !ok {
			continue
		}
		if b := m.entries[id]; b != nil {
			b.listed = m.listings
		} else {
			unread = append(unread, id)
		}
	}
	for _, b := range m.entries {
		if b.listed != m.listings {
			m.forget(b)
		}
	}
	for b, read := range m.whole {
		if (b.Entry.Unissued() || b.Entry.Flag != nil) && time.Since(read) > unissuedAge {
			unread = append(unread, b.ID)
		}
	}
	slices.Sort(unread)
	return slices.Compact(unread)
}

// unissuedAge is how old a copy of an entry without a certificate may be, or of one that is
// flagged.
const unissuedAge = 30 * time.Minute

// end notes that a listing is complete: all of it that can be read is known.
func (m *Memory) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = true
}

const (
	// recallEvery is how often each entry is read again at least. Each has its own moment for
	// that, so that the storage is never asked for all of them at once.
	recallEvery = 12 * time.Hour

	// recallMost is the longest part of that which one call covers.
	recallMost = time.Hour
)

// recall returns the IDs of the entries whose moment has come since the last call with the same
// interval. undo makes the next such call return them again.
func (m *Memory) recall(every time.Duration) (ids []string, undo func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.recalled == nil {
		m.recalled = make(map[time.Duration]time.Duration)
	}
	from, now := m.recalled[every], time.Since(m.first)
	from = max(from, now-every)
	until := min(now, from+recallMost)
	m.recalled[every] = until
	for _, b := range m.entries {
		turn := time.Duration(fingerprint(b.ID) % uint64(every)) //nolint:gosec // it is positive
		if after := ((turn-from)%every + every) % every; after < until-from {
			ids = append(ids, b.ID)
		}
	}
	slices.Sort(ids)
	return ids, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.recalled[every] = min(m.recalled[every], from)
	}
}

// Certified returns the IDs of the entries that have their certificate, ask nobody and are not
// over, in one of so many parts of about the same size, which are numbered from 0.
func (m *Memory) Certified(now time.Time, part, parts int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, b := range m.entries {
		if b.certified(now) && fingerprint(id)%uint64(parts) == uint64(part) { //nolint:gosec // both are small and not negative
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (b *Brief) certified(now time.Time) bool {
	return (b.Entry == nil || b.Entry.done()) && momentOf(now) < b.ends
}

// Ordered returns the IDs of the entries that [Memory.Certified] is about and whose order has
// one of the given IDs of the vendor. It may return others.
func (m *Memory) Ordered(now time.Time, orders []string) []string {
	wanted := make(map[uint64]struct{}, len(orders))
	for _, order := range orders {
		wanted[fingerprint(order)] = struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, b := range m.entries {
		if _, is := wanted[b.order]; is && b.certified(now) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// HasLost reports whether the certificate of that serial number, which an order for the name
// gave as its latest, is of no use, as far as is known.
func (m *Memory) HasLost(name, serial string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.of(name), func(b *Brief) bool {
		return b.Entry != nil && b.Entry.LostCertificate() && b.Entry.Certificate.Serial == serial
	})
}

// NamesOf returns the names that the entries with the IDs may speak for.
func (m *Memory) NamesOf(ids []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, id := range ids {
		if b := m.entries[id]; b != nil {
			names = append(names, b.names...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// about returns the entries that may speak for one of the names, newest first.
func (m *Memory) about(names ...string) []*Brief {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*Brief
	for _, name := range names {
		for _, b := range m.of(name) {
			if !slices.Contains(found, b) {
				found = append(found, b)
			}
		}
	}
	slices.SortFunc(found, func(a, b *Brief) int {
		return cmp.Or(cmp.Compare(b.ends, a.ends), cmp.Compare(b.paid, a.paid), strings.Compare(b.ID, a.ID))
	})
	return found
}

// About returns the entries that may speak for the name, as far as they are known, newest
// first.
func (m *Memory) About(name string) []*Brief { return m.about(name) }

// Others returns the entries that may speak for one of the names, newest first, but for the
// one with the ID, and tells whether that one is there.
func (m *Memory) Others(names []string, id string, found *bool) []*Brief {
	return slices.DeleteFunc(m.about(names...), func(b *Brief) bool {
		if b.ID == id {
			*found = true
		}
		return b.ID == id
	})
}

// All returns the entries that are known, in no order.
func (m *Memory) All() []*Brief {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.AppendSeq(make([]*Brief, 0, len(m.entries)), maps.Values(m.entries))
}

// Orders returns the IDs of the entries of orders that were placed here, the latest first.
func (m *Memory) Orders() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.entries))
	for id, b := range m.entries {
		if !b.adopted {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(b, a) })
	return ids
}

// Pending returns the entries that need something done, or that led to nothing: all but those
// that have their certificate and ask nobody. Newest first. They must not be changed.
func (m *Memory) Pending() []*Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Entry
	for b := range m.whole {
		if !b.Entry.done() {
			list = append(list, b.Entry)
		}
	}
	sortNewest(list)
	return list
}

// Flagged returns the entries that ask a person, as far as is known, newest first.
func (m *Memory) Flagged() []*Entry {
	return slices.DeleteFunc(m.Pending(), func(e *Entry) bool { return e.Flag == nil || e.State == Gone })
}

// GivenUp returns the IDs of the entries that were given up from the given moment on because
// the vendor had ended them, as far as is known, in no order.
func (m *Memory) GivenUp(from time.Time) (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := range m.whole {
		if e := b.Entry; e.GivenUp && e.State == Gone && !e.Updated.Before(from) {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

func sortNewest(list []*Entry) {
	slices.SortFunc(list, func(a, b *Entry) int {
		return cmp.Or(b.Ends.Compare(a.Ends), b.Paid.Compare(a.Paid), strings.Compare(b.ID, a.ID))
	})
}

// Asks reports whether the entry with the ID asks a person, as far as is known.
func (m *Memory) Asks(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.entries[id]
	return b != nil && b.Entry != nil && b.Entry.Flag != nil && b.Entry.State != Gone
}

// requested returns the entries that may wait for what was requested with one of the
// references, or whose certificate may have come of it.
func (m *Memory) requested(references []string) []*Brief {
	wanted := make(map[uint64]struct{}, len(references))
	for _, reference := range references {
		wanted[fingerprint(reference)] = struct{}{}
	}
	return slices.DeleteFunc(m.All(), func(b *Brief) bool {
		_, given := wanted[b.reference]
		latest := false
		if b.Entry != nil {
			_, latest = wanted[fingerprint(b.Entry.Attempt.Reference)]
		}
		return !given && !latest
	})
}

// references returns the fingerprints of the latest requests of all entries, and of those that
// gave their certificates.
func (m *Memory) references() map[uint64]struct{} {
	known := make(map[uint64]struct{})
	for _, b := range m.All() {
		known[b.reference] = struct{}{}
		if b.Entry != nil {
			known[fingerprint(b.Entry.Attempt.Reference)] = struct{}{}
		}
	}
	return known
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

// Spending returns how many purchases count from the given moment on, and when the nth newest
// of them was, where the newest is the 0th. What turned out to have bought nothing counts,
// too: it may be a wrong guess.
func (m *Memory) Spending(from time.Time, nth int) (count int, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count = len(m.paid) - m.paidUntil(momentOf(from))
	if nth >= 0 && nth < count {
		at = time.Unix(0, int64(m.paid[len(m.paid)-1-nth])).UTC()
	}
	return count, at
}

// listing is one listing of the ledger, for all that wait for it.
type listing struct {
	begun bool
	done  chan struct{}
	err   error
	next  *listing // begins when this one has ended
}

// Listed reports whether this process has listed the ledger, and read what can be read of it.
func (m *Memory) Listed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known
}

// Knows reports whether an entry may speak for the name, as far as is known.
func (m *Memory) Knows(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byName[name] != nil
}

// HasSerial reports whether an order for the name gave the certificate of that serial
// number as its latest.
func (m *Memory) HasSerial(name, serial string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.of(name), func(b *Brief) bool { return b.Gave(serial) })
}
