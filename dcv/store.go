package dcv

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
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
// All methods may be called concurrently.
type Store struct {
	live   atomic.Pointer[liveFiles]
	mu     sync.Mutex // guards changes of live, and logs
	logs   map[string]*visitLog
	remote remote
}

// liveFiles is never changed after it was stored. Files are in the order in
// which they are tried.
type liveFiles map[string][]*file

// file is a challenge as it is served on one host.
type file struct {
	id      string
	name    string // the host that the challenge names: this one or its twin
	path    string
	lower   string // path in lower case
	body    []byte
	length  []string // value of the Content-Length header
	expires time.Time
	visits  *visitLog // nil if the challenge was presented by another instance
}

func newFile(ch Challenge, name string) *file {
	return &file{
		id:      ch.ID,
		name:    name,
		path:    ch.Path,
		lower:   strings.ToLower(ch.Path),
		body:    ch.Body,
		length:  []string{strconv.Itoa(len(ch.Body))},
		expires: ch.Expires,
	}
}

func (f *file) live() bool { return f.expires.IsZero() || time.Now().Before(f.expires) }

// NewStore returns an empty store. Programs use Live; tests make their own.
func NewStore() *Store {
	s := &Store{logs: make(map[string]*visitLog)}
	s.live.Store(&liveFiles{})
	return s
}

// Present makes the challenge fetchable on its hosts and their twins: at once in
// this process, and through storage, if it is not nil, in a cluster. What the
// same ID had presented for the same hosts is replaced. On an error of the
// storage the file is nevertheless up in this process; CleanUp takes it down.
func (s *Store) Present(ctx context.Context, storage certmagic.Storage, ch Challenge) error {
	if err := ch.check(); err != nil {
		return err
	}

	s.mu.Lock()
	log := s.logs[ch.ID]
	if log == nil {
		log = new(visitLog)
		s.logs[ch.ID] = log
	}
	next := maps.Clone(*s.live.Load())
	for _, name := range ch.Hosts {
		for _, host := range servedOn(name) {
			f := newFile(ch, name)
			f.visits = log
			next[host] = insertFile(next[host], host, f)
		}
	}
	s.live.Store(&next)
	s.mu.Unlock()

	if storage == nil {
		return nil
	}
	return updateHosts(ctx, storage, ch.Hosts, func(host string, files []*file) []*file {
		for _, name := range ch.Hosts {
			if slices.Contains(servedOn(name), host) {
				files = insertFile(files, host, newFile(ch, name))
			}
		}
		return files
	})
}

// cleanUpTimeout bounds the storage calls of one CleanUp.
const cleanUpTimeout = 30 * time.Second

// CleanUp ends what the ID presented for the hosts and their twins, in memory
// and, if storage is not nil, there. With no hosts it ends whatever this process
// has presented under the ID. It is clean-up and therefore also does its work
// under a cancelled context. Cleaning up what is not there is no error.
func (s *Store) CleanUp(ctx context.Context, storage certmagic.Storage, id string, hosts []string) error {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = NormalizeHost(host)
	}

	s.mu.Lock()
	next := maps.Clone(*s.live.Load())
	if len(names) == 0 {
		names = next.names(id)
	}
	drop := func(_ string, files []*file) []*file {
		return slices.DeleteFunc(slices.Clone(files), func(f *file) bool {
			return f.id == id && slices.Contains(names, f.name)
		})
	}
	for _, name := range names {
		for _, host := range servedOn(name) {
			if left := drop(host, next[host]); len(left) > 0 {
				next[host] = left
			} else {
				delete(next, host)
			}
		}
	}
	if len(next.names(id)) == 0 {
		delete(s.logs, id)
	}
	s.live.Store(&next)
	s.mu.Unlock()

	for _, name := range names {
		s.remote.forget(servedOn(name)...)
	}
	if storage == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return updateHosts(ctx, storage, names, drop)
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

func (s *Store) find(host, path string) *file { return pickFile((*s.live.Load())[host], path) }

// Visits returns the newest requests that were answered for the ID, oldest first,
// at most 64. Probes of our own are left out, and so are requests that another
// instance of a cluster answered. They are forgotten when the last file of the ID
// is cleaned up.
func (s *Store) Visits(id string) []Visit {
	visits, _ := s.visits(id)
	return visits
}

// VisitCount returns the number of all visits that Visits would return if it
// remembered all.
func (s *Store) VisitCount(id string) uint64 {
	_, total := s.visits(id)
	return total
}

func (s *Store) visits(id string) ([]Visit, uint64) {
	s.mu.Lock()
	log := s.logs[id]
	s.mu.Unlock()
	if log == nil {
		return nil, 0
	}
	return log.newest()
}

// servedOn returns the hosts on which a name's file is served.
func servedOn(name string) []string {
	if twin := Twin(name); twin != "" {
		return []string{name, twin}
	}
	return []string{name}
}

// names returns what the ID's challenges name.
func (l liveFiles) names(id string) []string {
	var names []string
	for host, files := range l {
		for _, f := range files {
			if f.id == id && f.name == host {
				names = append(names, host)
			}
		}
	}
	return names
}

// insertFile returns a new list in which the file replaces its predecessor and
// stands before all others of its kind. Files that name the host are one kind,
// those that name its twin the other, which comes second.
func insertFile(files []*file, host string, f *file) []*file {
	next := make([]*file, 0, len(files)+1)
	next = append(next, f)
	for _, old := range files {
		if old.id != f.id || old.name != f.name {
			next = append(next, old)
		}
	}
	slices.SortStableFunc(next, func(a, b *file) int {
		switch {
		case a.name == host && b.name != host:
			return -1
		case a.name != host && b.name == host:
			return 1
		}
		return 0
	})
	return next
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
