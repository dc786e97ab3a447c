package dcv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/errgroup"
)

// Live is the store of this process. Handlers and issuers of overlapping configs
// share it, so that a file outlives the reload of a config.
var Live = NewStore()

// Store holds the live challenges: in memory those presented by this process, in
// certmagic storage a copy of them for the other instances of a cluster.
//
// Where two challenges claim the same host and path, one that names the host
// goes before one that has it as a twin only, and then the newer before the
// older; the other is served again when the first is cleaned up.
//
// All methods may be called concurrently. Those that are for the same ID and host
// must come one after the other, in all processes, as those of one order do.
type Store struct {
	live   *liveFiles
	mu     sync.Mutex          // held while live is changed; guards owners
	owners map[string][]string // the hosts that the challenges of an ID name, few
	remote remote
	visits visitLogs
}

// file is a challenge as it is served on one host.
type file struct {
	id      string
	name    string // the host that the challenge names: this one or its twin
	path    string
	lower   string // path in lower case
	body    []byte
	expires time.Time
	group   string

	// presented is when another instance presented the challenge. Zero if this one did.
	presented time.Time
}

func newFile(ch Challenge, name string) *file {
	return &file{
		id:      ch.ID,
		name:    name,
		path:    ch.Path,
		lower:   strings.ToLower(ch.Path),
		body:    ch.Body,
		expires: ch.Expires,
		group:   ch.Group,
	}
}

func (f *file) distributed() bool { return !f.presented.IsZero() }

func (f *file) live() bool { return f.expires.IsZero() || time.Now().Before(f.expires) }

// NewStore returns an empty store. Programs use Live; tests make their own.
func NewStore() *Store {
	return &Store{live: newLiveFiles(), owners: make(map[string][]string)}
}

// presented is what one ID presents for one host.
type presented struct {
	id, name string
	files    []*file
	value    []byte // as it is stored
}

// Present makes the challenges fetchable on their hosts and the twins of these: at
// once in this process, and in a cluster through storage, if that is not nil, at
// the price of one Store for each host that is named. What the same ID had
// presented for the same hosts is replaced, so files that one ID presents for one
// host together must come in one call.
//
// An error of the storage wraps its cause. The files are nevertheless up in this
// process; CleanUp takes them down. An invalid challenge is a [*ChallengeError],
// and then, as when the challenges for one host are too large for the storage,
// nothing is up.
func (s *Store) Present(ctx context.Context, storage certmagic.Storage, challenges ...Challenge) error {
	all, err := byHost(challenges)
	if err != nil {
		return err
	}
	if storage != nil {
		for _, p := range all {
			if p.value, err = encodeFiles(p.id, p.name, p.files); err != nil {
				return err
			}
		}
	}

	s.mu.Lock()
	for _, p := range all {
		if !slices.Contains(s.owners[p.id], p.name) {
			s.owners[p.id] = append(s.owners[p.id], p.name)
		}
		for _, host := range servedOn(p.name) {
			s.live.replace(host, p.id, p.name, p.files)
		}
	}
	s.mu.Unlock()

	if storage == nil {
		return nil
	}
	return forEach(all, func(_ int, p *presented) error {
		if err := storage.Store(ctx, valueKey(p.name, p.id), p.value); err != nil {
			return fmt.Errorf("sharing the validation file for %s with other instances: %w", p.name, err)
		}
		return nil
	})
}

// byHost checks the challenges and sorts them by ID and the host they name, in the
// order given.
func byHost(challenges []Challenge) ([]*presented, error) {
	var all []*presented
	found := make(map[[2]string]*presented)
	for _, ch := range challenges {
		if err := ch.check(); err != nil {
			return nil, err
		}
		for _, name := range ch.Hosts {
			key := [2]string{ch.ID, name}
			p := found[key]
			if p == nil {
				p = &presented{id: ch.ID, name: name}
				found[key] = p
				all = append(all, p)
			}
			p.files = append(p.files, newFile(ch, name))
		}
	}
	return all, nil
}

// forEach calls the function for all elements, a few at a time. It goes on after
// an error, so that one bad key does not keep the others from being written, and
// returns all of them.
func forEach[T any](list []T, do func(i int, element T) error) error {
	const atATime = 8
	errs := make([]error, len(list))
	var group errgroup.Group
	group.SetLimit(atATime)
	for i, element := range list {
		group.Go(func() error {
			errs[i] = do(i, element)
			return nil
		})
	}
	_ = group.Wait() // they are in errs
	return errors.Join(errs...)
}

// cleanUpTimeout bounds the storage calls of one CleanUp.
const cleanUpTimeout = 30 * time.Second

// CleanUp ends what the ID presented for the hosts and their twins, in memory
// and, if storage is not nil, there, with one Delete for each host. With no hosts
// it ends whatever this process has presented under the ID. It needs no Present
// that succeeded, and works under a cancelled context too, because it often comes
// after a cancellation. Cleaning up what is not there is no error.
//
// When it returns, this process serves the files no more. Other instances serve
// what they know for up to a second longer.
func (s *Store) CleanUp(ctx context.Context, storage certmagic.Storage, id string, hosts []string) error {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = NormalizeHost(host)
	}

	s.mu.Lock()
	own := s.owners[id]
	if len(names) == 0 {
		names = slices.Sorted(slices.Values(own))
	}
	for _, name := range names {
		for _, host := range servedOn(name) {
			s.live.replace(host, id, name, nil)
		}
		own = slices.DeleteFunc(own, func(other string) bool { return other == name })
	}
	if len(own) > 0 {
		s.owners[id] = own
	} else {
		delete(s.owners, id)
		s.visits.forget(id)
	}
	s.mu.Unlock()

	// Afterwards, or a request could make this process remember what it is about to
	// delete.
	defer func() {
		for _, name := range names {
			s.remote.forget(servedOn(name)...)
		}
	}()
	if storage == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return forEach(names, func(_ int, name string) error {
		if err := storage.Delete(ctx, valueKey(name, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the shared validation file for %s: %w", name, err)
		}
		return nil
	})
}

// Lookup returns the body of the live file, looking in memory only. The host must
// be as it stands in a Host header, the path as in a URL without escapes. The
// body must not be changed.
func (s *Store) Lookup(host, path string) (body []byte, ok bool) {
	if f := s.find(NormalizeHost(host), path); f != nil {
		return f.body, true
	}
	return nil, false
}

func (s *Store) find(host, path string) *file { return pickFile(s.live.of(host), path) }

// missed returns the live file that a request is for but for its method, escapes or
// capitals. It looks in memory only.
func (s *Store) missed(host, path string) *file {
	for _, f := range slices.Concat(s.live.of(host), s.remote.known(host)) {
		if strings.EqualFold(f.path, path) && f.live() {
			return f
		}
	}
	return nil
}

// Visits returns the newest requests to this process for the files of the ID, oldest
// first, at most 64. Probes of our own are left out. They are forgotten when the last
// file of the ID is cleaned up. Those for files that another instance has presented are
// forgotten a minute after they are written, see WriteVisits.
func (s *Store) Visits(id string) []Visit {
	visits, _ := s.visits.of(id)
	return visits
}

// VisitCount returns the number of all visits that Visits would return if it
// remembered all.
func (s *Store) VisitCount(id string) uint64 {
	_, total := s.visits.of(id)
	return total
}

// servedOn returns the hosts on which a name's file is served.
func servedOn(name string) []string {
	if twin := Twin(name); twin != "" {
		return []string{name, twin}
	}
	return []string{name}
}

// pickFile returns the first live file of that path. A path in lower case finds
// its file too: CAs have been seen to ask so.
func pickFile(files []*file, path string) *file {
	for _, f := range files {
		if f.path == path && f.live() {
			return f
		}
	}
	for _, f := range files {
		if f.lower == path && f.live() {
			return f
		}
	}
	return nil
}
