package dcv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/errgroup"
)

const (
	maxVisits    = 64  // remembered per challenge ID; six perspectives come about twice each
	maxUserAgent = 256 // bytes kept of a visitor's user agent

	// maxVisited bounds the challenges of other instances whose visits are remembered.
	maxVisited = 4096

	// writeAfter is how long after a visit it is first passed to WriteVisits. Most
	// challenges are over by then.
	writeAfter = 30 * time.Second

	// writeEvery is the shortest time between two writes for one ID.
	writeEvery = time.Minute

	// unwrittenFor is how long visits are due before they are taken for those of a
	// group that nobody writes for.
	unwrittenFor = time.Hour
)

// Visit is one request for a validation file, answered with it or not.
type Visit struct {
	Time       time.Time
	Host       string // as normalized by NormalizeHost
	RemoteAddr string // host:port of the connection, or the address that a trusted proxy tells
	UserAgent  string // cut at 256 bytes
	Status     int    // HTTP status of the answer
	Missed     bool   // whether the answer was not the file, whatever its status
}

// visitLogs are the visits to the challenges that this process serves, its own and
// those of other instances. Its zero value is empty.
type visitLogs struct {
	mu   sync.Mutex
	byID map[string]*visitLog
}

// visitLog counts the visits to one ID and remembers the newest.
type visitLog struct {
	group, name string // of the first file that was asked for
	distributed bool   // whether another instance presented the last one
	total       uint64
	written     uint64    // of them
	due         time.Time // when the others are written, not before; monotonic
	ring        []Visit   // up to maxVisits; then the oldest stands at total % maxVisits
}

func (l *visitLogs) add(f *file, v Visit) {
	v.Host = strings.Clone(v.Host) // it may be a part of a long request line
	v.UserAgent = strings.ToValidUTF8(v.UserAgent, "")
	if len(v.UserAgent) > maxUserAgent {
		v.UserAgent = strings.Clone(strings.ToValidUTF8(v.UserAgent[:maxUserAgent], ""))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.byID[f.id]
	if log == nil {
		if f.distributed() && !l.room() {
			return
		}
		if l.byID == nil {
			l.byID = make(map[string]*visitLog)
		}
		log = &visitLog{group: f.group, name: f.name}
		l.byID[f.id] = log
	}
	log.distributed = f.distributed()
	if log.written == log.total && log.due.Before(v.Time.Add(writeAfter)) {
		log.due = v.Time.Add(writeAfter)
	}
	if len(log.ring) < maxVisits {
		log.ring = append(log.ring, v)
	} else {
		log.ring[log.total%maxVisits] = v
	}
	log.total++
}

// room reports whether there is room for another instance's challenge. The lock is held.
func (l *visitLogs) room() bool {
	if len(l.byID) >= maxVisited {
		maps.DeleteFunc(l.byID, func(_ string, log *visitLog) bool {
			return log.distributed && time.Since(log.due) > unwrittenFor
		})
	}
	return len(l.byID) < maxVisited
}

// newest returns the remembered visits, but at most n, oldest first.
func (log *visitLog) newest(n uint64) []Visit {
	oldest := log.total % maxVisits
	all := slices.Concat(log.ring[oldest:], log.ring[:oldest])
	return all[max(0, len(all)-int(min(n, maxVisits))):]
}

// of returns the remembered visits to the ID, oldest first, and the number of all.
func (l *visitLogs) of(id string) ([]Visit, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.byID[id]
	if log == nil {
		return nil, 0
	}
	return log.newest(maxVisits), log.total
}

func (l *visitLogs) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byID, id)
}

// unwritten is what is to be written of the visits to one ID.
type unwritten struct {
	id, name string
	visits   []Visit
	count    uint64
	total    uint64 // visits to the ID, when it was asked
}

// take returns what is due, and makes it due again later. Visits to another instance's
// challenge that are all written are forgotten instead.
func (l *visitLogs) take(group string) (list []unwritten) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for id, log := range l.byID {
		if log.group != group || now.Before(log.due) {
			continue
		}
		if log.written == log.total {
			if log.distributed {
				delete(l.byID, id)
			}
			continue
		}
		log.due = now.Add(writeEvery)
		count := log.total - log.written
		list = append(list, unwritten{id, log.name, log.newest(count), count, log.total})
	}
	return list
}

// wrote notes that visits are written, or need not be because the challenge is over.
func (l *visitLogs) wrote(u unwritten, live bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.byID[u.id]
	switch {
	case log == nil:
	case !live && log.total == u.total:
		delete(l.byID, u.id)
	default:
		log.written = u.total
	}
}

// WriteVisits calls write for the challenges of a group that were visited half a minute
// ago or earlier and are still live: with the newest visits that have not been passed to
// it yet, oldest first, and the number of all of these. For each ID it does so once a
// minute at most. The first error of write or of the storage ends it; what is not
// written by then is due again in a minute.
//
// That a challenge of this process is live is known. For one of another instance, the
// storage is asked with one Load.
func (s *Store) WriteVisits(ctx context.Context, storage certmagic.Storage, group string,
	write func(ctx context.Context, id string, newest []Visit, count uint64) error,
) error {
	const atATime = 8
	todo, ctx := errgroup.WithContext(ctx)
	todo.SetLimit(atATime)
	for _, u := range s.visits.take(group) {
		todo.Go(func() error {
			own := s.presents(u.id)
			live, err := own, ctx.Err()
			if err == nil && !own {
				live, err = isStored(ctx, storage, u.name, u.id)
			}
			if err == nil && live {
				err = write(ctx, u.id, u.visits, u.count)
			}
			if err == nil {
				s.visits.wrote(u, live)
			}
			return err
		})
	}
	return todo.Wait()
}

// presents reports whether this process presents something under the ID.
func (s *Store) presents(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.owners[id]) > 0
}

// isStored reports whether an ID presents something for a host in a cluster.
func isStored(ctx context.Context, storage certmagic.Storage, name, id string) (bool, error) {
	if storage == nil {
		return false, nil
	}
	key := valueKey(name, id)
	_, err := storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return true, nil
}
