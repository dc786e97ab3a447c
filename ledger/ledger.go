package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/errgroup"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// ErrConflict says that another writer changed an entry since it was read.
var ErrConflict = errors.New("ledger entry was changed by another writer")

// DamagedEntryError is an entry that cannot be used. Nothing is bought from its account
// until a person has looked at it, because nobody can tell which names it is for.
type DamagedEntryError struct {
	Key string // where the entry is in storage
	Err error
}

func (e *DamagedEntryError) Error() string {
	return fmt.Sprintf("ledger entry %s cannot be used, so nothing is bought from its account; "+
		"compare it with the vendor's list of orders and repair or remove it: %v", e.Key, e.Err)
}

func (e *DamagedEntryError) Unwrap() error { return e.Err }

// Ledger is the ledger of one account at one vendor, on the storage of one configuration.
type Ledger struct {
	// Storage is where entries are kept.
	Storage certmagic.Storage

	// Prefix is where the ledger is in it, see [Prefix].
	Prefix string

	// Memory is what the process remembers. It is shared by all ledgers of the same
	// place.
	Memory *Memory

	// Now is the wall clock. Nil means that of the system.
	Now func() time.Time

	// Random fills a buffer, for IDs. Nil means crypto/rand.
	Random func([]byte)

	// Written is called after each change of an entry that this process has stored; before is nil
	// for a new one. It must neither block nor change them. It may be nil.
	Written func(before, after *Entry)
}

// Time tells the wall-clock time, without a monotonic reading.
func (l *Ledger) Time() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now().UTC().Round(0)
}

func (l *Ledger) key(id string) string { return path.Join(l.Prefix, entries, id+".json") }

// writeTimeout bounds the storage calls of one write.
const writeTimeout = 30 * time.Second

// storageContext outlives ctx, because what is recorded has usually happened already.
func storageContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
}

// Fill fills a buffer with random bytes.
func (l *Ledger) Fill(b []byte) {
	if l.Random != nil {
		l.Random(b)
		return
	}
	// Read never fails; see its documentation.
	_, _ = rand.Read(b)
}

// NewID returns the ID of a new entry.
func (l *Ledger) NewID() string {
	b := make([]byte, 8)
	l.Fill(b)
	return l.Time().UTC().Format("20060102t150405") + "-" + hex.EncodeToString(b)
}

// Refresh reads what other processes wrote: one listing, and the entries that are not
// known yet. Callers that come while one is under way share the next one, because a
// decision may only rest on a listing that began after it was due. An error means that it
// cannot be told what there is; nothing may be bought then.
func (l *Ledger) Refresh(ctx context.Context) error {
	m := l.Memory
	m.mu.Lock()
	current := m.listing
	mine := false
	switch {
	case current == nil:
		current = &listing{begun: true, done: make(chan struct{})}
		m.listing, mine = current, true
	case current.next == nil:
		before := current
		current = &listing{done: make(chan struct{})}
		before.next = current
		m.mu.Unlock()
		<-before.done
		m.mu.Lock()
		current.begun, m.listing, mine = true, current, true
	default:
		current = current.next
	}
	m.mu.Unlock()
	if mine {
		return l.lead(ctx, current)
	}
	select {
	case <-current.done:
		return current.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// listTimeout bounds a listing. The first one of a process reads all entries.
	listTimeout = 5 * time.Minute

	// listGrace is how long a listing may go on after its caller's configuration has ended,
	// for others that wait for it. The end of the configuration waits for it, too.
	listGrace = 10 * time.Second
)

// lead makes a listing for all callers that wait for it, and releases them whatever comes of it.
func (l *Ledger) lead(ctx context.Context, current *listing) error {
	m := l.Memory
	current.err = errors.New("listing the ledger broke off")
	defer func() {
		m.mu.Lock()
		if current.next == nil {
			m.listing = nil
		}
		m.mu.Unlock()
		close(current.done)
	}()
	ctx, cancel := poll.WithGrace(ctx, listTimeout, listGrace)
	defer cancel()
	current.err = l.list(ctx)
	return current.err
}

// readers is how many entries are read at a time when many must be.
const readers = 16

// maxUnread is how many entries may be out of reach, one after another, before it is the storage that
// is. Each may take as long as the storage waits for its answer.
const maxUnread = 3

func (l *Ledger) list(ctx context.Context) error {
	l.Memory.begin()
	keys, err := listKeys(ctx, l.Storage, path.Join(l.Prefix, entries))
	if err != nil {
		return fmt.Errorf("listing the ledger: %w", err)
	}
	var mu sync.Mutex
	var unread error // the others are still driven
	failed := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, id := range l.Memory.compare(keys) {
		group.Go(func() error {
			_, err := l.Load(ctx, id)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			unread = err
			if _, damaged := errors.AsType[*DamagedEntryError](err); !damaged {
				failed++
			}
			if failed > maxUnread || ctx.Err() != nil {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.Memory.end()
	return unread
}

// Recall reads again the entries whose turn it is, so that what other servers and people
// changed about them is noticed. Each has its turn twice a day, however often and by how
// many it is called.
func (l *Ledger) Recall(ctx context.Context) error {
	_, err := l.RecallWithin(ctx, recallEvery)
	return err
}

// RecallWithin is Recall where each entry has its turn once in the given time. It returns the IDs
// of those whose turn it was. An error with IDs is about a few that could not be read: they stay as they
// are known. If it has none, the storage is out of reach, and all have their turn at the next call.
func (l *Ledger) RecallWithin(ctx context.Context, every time.Duration) (ids []string, unread error) {
	ids, undo := l.Memory.recall(every)
	failed := 0
	for _, id := range ids {
		_, err := l.Load(ctx, id)
		if ctx.Err() != nil {
			undo()
			return nil, context.Cause(ctx)
		}
		if _, damaged := errors.AsType[*DamagedEntryError](err); err == nil || damaged || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBehind) {
			continue
		}
		unread = err
		if failed++; failed > maxUnread {
			undo()
			return nil, err
		}
	}
	return ids, unread
}

// errBehind is a storage that shows less of an entry than it did before.
var errBehind = errors.New("the storage has shown a later version of it before, and may be lagging behind")

// Load reads an entry. One that is not there is fs.ErrNotExist. Where the storage is behind what
// this process knows, the entry is returned as known; or, for a while, an error if only a [Brief]
// of it is left.
func (l *Ledger) Load(ctx context.Context, id string) (*Entry, error) {
	begun := time.Now() // a slow storage answers with what was true then
	e, err := l.read(ctx, l.key(id))
	if errors.Is(err, fs.ErrNotExist) {
		l.Memory.drop(id)
	}
	if err != nil {
		return nil, err
	}
	if e.ID != id {
		return nil, &DamagedEntryError{l.key(id), fmt.Errorf("it is entry %q", e.ID)}
	}
	if e = l.Memory.put(e, begun, false); e == nil {
		return nil, fmt.Errorf("reading ledger entry %s: %w", l.key(id), errBehind)
	}
	return e, nil
}

func (l *Ledger) read(ctx context.Context, key string) (*Entry, error) {
	data, err := l.Storage.Load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading ledger entry %s: %w", key, err)
	}
	e := new(Entry)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, &DamagedEntryError{key, err}
	}
	if err := e.check(); err != nil {
		return nil, &DamagedEntryError{key, err}
	}
	return e, nil
}

// About reads the entries that may speak for one of the names, newest first, as far as
// they are known since the last [Ledger.Refresh].
func (l *Ledger) About(ctx context.Context, names ...string) ([]*Entry, error) {
	var found []*Entry
	for _, b := range l.Memory.about(names...) {
		e, err := l.Load(ctx, b.ID)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	sortNewest(found)
	return found, nil
}

// Requested reads the entries whose latest request has one of the references, or whose latest
// certificate came of such a request, by reference, as far as they are known since the last
// [Ledger.Refresh].
func (l *Ledger) Requested(ctx context.Context, references []string) (map[string][]*Entry, error) {
	found := make(map[string][]*Entry)
	for _, b := range l.Memory.requested(references) {
		e := b.Entry
		if e == nil {
			var err error
			e, err = l.Load(ctx, b.ID)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		found[e.Attempt.Reference] = append(found[e.Attempt.Reference], e)
		if c := e.Certificate; c != nil && c.Reference != e.Attempt.Reference {
			found[c.Reference] = append(found[c.Reference], e)
		}
	}
	return found, nil
}

// Create stores a new entry. After an error it may or may not be there, now or in a
// moment.
func (l *Ledger) Create(ctx context.Context, e *Entry) error {
	e.Revision = 0
	return l.store(ctx, nil, e)
}

// Write changes an entry if it is still the one that was read, and if its new state may follow the
// old one. It returns the entry as written. If another writer was faster, the error is
// ErrConflict.
func (l *Ledger) Write(ctx context.Context, e *Entry, change func(*Entry)) (*Entry, error) {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	stored, err := l.Load(ctx, e.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is not there any more", ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	if stored.Revision != e.Revision {
		return nil, fmt.Errorf("%w: %s has revision %d, expected %d", ErrConflict, l.key(e.ID), stored.Revision, e.Revision)
	}
	if !stored.Updated.Equal(e.Updated) {
		return nil, fmt.Errorf("%w: another writer, which had not seen it, made revision %d of %s, too", ErrConflict, e.Revision, l.key(e.ID))
	}
	next := e.clone()
	if next.Attempt.Visits == nil {
		next.Attempt.Visits = stored.Attempt.Visits // which memory may have left out
	}
	change(next)
	if !canFollow(e.State, next.State) {
		return nil, fmt.Errorf("ledger entry %s cannot go from %q to %q", l.key(e.ID), e.State, next.State)
	}
	return next, l.store(ctx, e, next)
}

// answerRetries is how often the vendor's answer is stored anew before it is left to a
// look-up.
const answerRetries = 5

// Answer records what the vendor answered to the request in the entry. It wins over what any other
// writer guessed meanwhile, even over gone: only the change of a writer that knows the same order
// stands.
func (l *Ledger) Answer(ctx context.Context, e *Entry, change func(*Entry)) (*Entry, error) {
	var err error
	for try := range answerRetries {
		if try > 0 {
			wait, cancel := storageContext(ctx)
			sleep(wait, 2*time.Second)
			cancel()
		}
		var next *Entry
		if next, err = l.answer(ctx, e, change); err == nil {
			return next, nil
		}
	}
	return nil, err
}

func (l *Ledger) answer(ctx context.Context, e *Entry, change func(*Entry)) (*Entry, error) {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	stored, err := l.Load(ctx, e.ID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	base := e
	if stored != nil {
		base = stored
	}
	next := base.clone()
	same := base.Attempt.Reference == e.Attempt.Reference
	if !same {
		unseen := base.Revision == e.Revision || base.Attempt.Started.Before(e.Attempt.Started)
		if !unseen {
			return stored, nil // it has gone on from this answer already
		}
		next.Attempt = e.clone().Attempt // which another writer did not see
	}
	change(next)
	if same && base.Revision != e.Revision && base.OrderID == next.OrderID && base.State != Gone {
		return stored, nil
	}
	return next, l.store(ctx, base, next)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// store stores an entry. before is the entry as it was until now, nil for a new one.
func (l *Ledger) store(ctx context.Context, before, e *Entry) error {
	begun := time.Now()
	ctx, cancel := storageContext(ctx)
	defer cancel()
	e.Version, e.Updated = formatVersion, l.Time()
	e.Revision++
	e.tellChanges(before, e.Updated)
	if err := e.check(); err != nil {
		return fmt.Errorf("writing ledger entry %s: %w", l.key(e.ID), err)
	}
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding ledger entry %s: %w", l.key(e.ID), err)
	}
	if err := l.Storage.Store(ctx, l.key(e.ID), data); err != nil {
		return fmt.Errorf("writing ledger entry %s: %w", l.key(e.ID), err)
	}
	l.Memory.put(e, begun, true)
	if l.Written != nil {
		l.Written(before, e)
	}
	return nil
}

// Delete removes an entry that bought nothing.
func (l *Ledger) Delete(ctx context.Context, id string) error {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	l.Memory.drop(id)
	if err := l.Storage.Delete(ctx, l.key(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing ledger entry %s: %w", l.key(id), err)
	}
	return nil
}

// keepOver is how long an entry that is over, or gone, still counts, for clocks that
// disagree and for late answers.
const keepOver = 3 * 24 * time.Hour

// Sweep moves entries that are over, or long gone, out of the way: their files stay for people, in
// another folder. What was paid for within spend, the span of the spending limit, stays, because
// it counts. Files of visits that belong to no entry are removed.
func (l *Ledger) Sweep(ctx context.Context, spend time.Duration) error {
	now := l.Time()
	before := now.Add(-keepOver)
	var ids []string
	for _, b := range l.Memory.All() {
		if (b.State() == Gone || b.ends < momentOf(before)) && !b.PaidAfter(now.Add(-spend)) {
			ids = append(ids, b.ID)
		}
	}
	slices.Sort(ids)
	var errs []error
	for _, id := range ids {
		e, err := l.Load(ctx, id)
		if err != nil {
			continue
		}
		// A certificate that is of no use may still be served, and then that must be known.
		old := e.Ends.Before(before) || e.State == Gone && e.Updated.Before(before) && !e.LostCertificate()
		if !old || e.Paid.After(now.Add(-spend)) {
			continue
		}
		data, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := l.Storage.Store(ctx, path.Join(l.Prefix, past, id+".json"), data); err != nil {
			errs = append(errs, fmt.Errorf("moving ledger entry %s: %w", id, err))
			continue
		}
		errs = append(errs, l.Delete(ctx, id))
	}
	errs = append(errs, l.sweepVisits(ctx))
	return errors.Join(errs...)
}
