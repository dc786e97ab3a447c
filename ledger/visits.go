package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Visit is one request for a validation file, as it is told to people.
type Visit struct {
	Time time.Time `json:"time"`
	Host string    `json:"host"` // that was asked for

	// From is the address that it came from, Server the host name of the server that
	// answered.
	From   string `json:"from"`
	Server string `json:"server"`

	UserAgent string `json:"user_agent,omitempty"`
	Status    int    `json:"status"`
	Missed    bool   `json:"missed,omitempty"` // the answer was not the file, whatever its status
}

// Visits are those for the validation files of one request. They are never changed.
type Visits struct {
	Total  uint64  `json:"total"`
	Newest []Visit `json:"newest"` // oldest first
}

const (
	maxEntryVisits = 16 // in an entry
	maxVisits      = 64 // in the file of one server

	// strayVisitsAge is how old visits that belong to no known entry must be before they are
	// removed. Their entry may not have been read yet.
	strayVisitsAge = 24 * time.Hour
)

// add returns v with later visits added: count in all, of which the newest are given. It keeps the
// newest ones, as many as most.
func (v *Visits) add(newest []Visit, count uint64, most int) *Visits {
	sum := &Visits{Total: count, Newest: newest}
	if v != nil {
		sum.Total += v.Total
		sum.Newest = slices.Concat(v.Newest, newest)
	}
	sum.Newest = inOrder(sum.Newest)
	sum.Newest = sum.Newest[max(0, len(sum.Newest)-most):]
	return sum
}

// inOrder sorts visits by time, and leaves out those that are there twice.
func inOrder(list []Visit) []Visit {
	list = slices.SortedFunc(slices.Values(list), compareVisits)
	return slices.CompactFunc(list, func(a, b Visit) bool { return compareVisits(a, b) == 0 })
}

func compareVisits(a, b Visit) int {
	return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Server, b.Server), strings.Compare(a.From, b.From),
		strings.Compare(a.Host, b.Host), cmp.Compare(a.Status, b.Status), strings.Compare(a.UserAgent, b.UserAgent))
}

// AddVisits notes who came to a server since the newest visit to it that is noted already, given
// the newest of all its visits, oldest first, and how many there were. Few are kept.
func (a *Attempt) AddVisits(newest []Visit, total uint64) {
	if total == 0 {
		return
	}
	noted := time.Time{}
	if a.Visits != nil {
		for _, v := range a.Visits.Newest {
			if v.Server == newest[0].Server {
				noted = v.Time
			}
		}
	}
	later := slices.DeleteFunc(slices.Clone(newest), func(v Visit) bool { return !v.Time.After(noted) })
	count := uint64(len(later))
	if noted.IsZero() {
		count = total
	}
	if count > 0 {
		a.Visits = a.Visits.add(later, count, maxEntryVisits)
	}
}

// Each server keeps the visits to it for an order that is not issued at once in a file of its own,
// so that any server can tell of them.

// visitsFile is the key of a server's file. References come from other servers, too, so that they
// are not trusted.
func (l *Ledger) visitsFile(reference, server string) string {
	return path.Join(l.Prefix, visits, Escape(reference)+"."+Escape(server)+".json")
}

// KeepVisits adds visits that a server has answered to those that it keeps for a request: count in
// all, of which the newest are given.
func (l *Ledger) KeepVisits(ctx context.Context, reference, server string, newest []Visit, count uint64) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	key := l.visitsFile(reference, server)
	kept, err := l.readVisits(ctx, key)
	if err != nil {
		return err
	}
	data, err := json.Marshal(kept.add(newest, count, maxVisits))
	if err == nil {
		err = l.Storage.Store(ctx, key, data)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}

// readVisits reads a file of visits. One that is not there, or is damaged, has none.
func (l *Ledger) readVisits(ctx context.Context, key string) (*Visits, error) {
	data, err := l.Storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	v := new(Visits)
	if json.Unmarshal(data, v) != nil {
		v = nil // as if it were lost
	}
	return v, nil
}

// Visits returns the visits for the validation files of the latest request of an entry, as far as
// any server has written them down, oldest first. With an error, some may be missing. The entry
// must have been read by [Ledger.Load]: memory does not keep all of it.
func (l *Ledger) Visits(ctx context.Context, e *Entry) ([]Visit, error) {
	var all []Visit
	if e.Attempt.Visits != nil {
		all = e.Attempt.Visits.Newest
	}
	files, err := l.visitsFiles(ctx)
	for _, key := range files[Escape(e.Attempt.Reference)] {
		kept, failed := l.readVisits(ctx, key)
		if kept != nil {
			all = slices.Concat(all, kept.Newest)
		}
		err = errors.Join(err, failed)
	}
	return inOrder(all), err
}

// visitsFiles returns the keys of all files of visits by reference.
func (l *Ledger) visitsFiles(ctx context.Context) (map[string][]string, error) {
	keys, err := listKeys(ctx, l.Storage, path.Join(l.Prefix, visits))
	if err != nil {
		return nil, fmt.Errorf("listing visits: %w", err)
	}
	files := make(map[string][]string)
	for _, key := range keys {
		if reference, server, ok := strings.Cut(path.Base(key), "."); ok && path.Ext(server) == ".json" {
			files[reference] = append(files[reference], key)
		}
	}
	return files, nil
}

// sweepVisits removes the files of visits to requests that no known entry is about.
func (l *Ledger) sweepVisits(ctx context.Context) error {
	if !l.Memory.Listed() {
		return nil
	}
	files, err := l.visitsFiles(ctx)
	known := l.Memory.references()
	for reference, keys := range files {
		if _, is := known[fingerprint(reference)]; is {
			continue
		}
		for _, key := range keys {
			kept, failed := l.readVisits(ctx, key)
			young := kept != nil && len(kept.Newest) > 0 && l.Time().Sub(kept.Newest[len(kept.Newest)-1].Time) < strayVisitsAge
			if failed == nil && !young {
				failed = l.remove(ctx, key)
			}
			err = errors.Join(err, failed)
		}
	}
	return err
}
