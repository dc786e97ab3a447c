package dcv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// knownAge is how long after the beginning of a read its files are served
	// without another look. While the storage works, a file may outlive its clean-up
	// at another instance by as much.
	knownAge = time.Second

	// holdTime bounds the time for which a request waits for the storage.
	holdTime = 5 * time.Second

	// maxHeld bounds the requests that wait at the same time. It is what 20,000
	// requests per second amount to when all of them wait for readInterval.
	maxHeld = 1024

	// maxHosts bounds the hosts remembered of a storage. At most maxHeld of them
	// wait at a time, so the others can be forgotten.
	maxHosts = 4096

	// warnInterval is the shortest time between two errors that are returned.
	warnInterval = time.Second
)

// remote knows what other instances of a cluster have presented.
type remote struct {
	sources atomic.Pointer[[]*source]
	mu      sync.Mutex // guards changes of sources

	held   atomic.Int64 // requests that wait
	warned atomic.Int64 // when an error was told, Unix time in nanoseconds
}

// source is a storage and the hosts for which it may be read.
type source struct {
	storage certmagic.Storage
	key     string
	cache   *cache // one for all sources of the same key
	managed func(host string) (managed, exact bool)
}

// cache is what is known of one storage.
type cache struct {
	// folders are the names of all hosts' folders. They are read to learn with one
	// operation which of any number of hosts need a read of their own.
	folders shared[map[string]struct{}]

	mu    sync.Mutex
	hosts map[string]*shared[[]*file]
}

// Manage allows the storage to be read for hosts that are managed according to the
// function, or whose twin is. Exact tells whether the host is written out in the
// config, rather than covered by a wildcard or by a site for all names; such a host
// needs no look at the list of all hosts, which keeps strangers from causing reads
// for names that they make up. The function is given normalized hosts, must be
// quick, and may be called concurrently.
//
// The permission ends when release is called. Those of overlapping configs may
// overlap; the same storage is then read once.
func (s *Store) Manage(storage certmagic.Storage, managed func(host string) (managed, exact bool)) (release func()) {
	if storage == nil || managed == nil {
		return func() {}
	}
	added := &source{storage: storage, key: storageIdentity(storage), managed: managed}
	s.remote.change(func(sources []*source) []*source {
		added.cache = &cache{hosts: make(map[string]*shared[[]*file])}
		for _, have := range sources {
			if have.key == added.key {
				added.cache = have.cache
			}
		}
		return append([]*source{added}, sources...)
	})
	return sync.OnceFunc(func() {
		s.remote.change(func(sources []*source) []*source {
			return slices.DeleteFunc(sources, func(have *source) bool { return have == added })
		})
	})
}

// storageIdentity tells storages apart across config reloads, which make a new
// value for the same place. Storages describe themselves for logs.
func storageIdentity(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return fmt.Sprintf("%T %s", storage, s.String())
	}
	return fmt.Sprintf("%T %p", storage, storage)
}

func (r *remote) change(f func([]*source) []*source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := f(slices.Clone(r.all()))
	r.sources.Store(&next)
}

// all returns the sources, the newest first.
func (r *remote) all() []*source {
	if sources := r.sources.Load(); sources != nil {
		return *sources
	}
	return nil
}

// readable is a storage that may be read for a host.
type readable struct {
	*source
	exact bool
}

// storages returns those that may be read for the host, each once.
func (r *remote) storages(host string) []readable {
	var found []readable
	twin := Twin(host)
	for _, src := range r.all() {
		managed, exact := src.managed(host)
		if twin != "" && !exact {
			twinManaged, twinExact := src.managed(twin)
			managed, exact = managed || twinManaged, exact || twinExact
		}
		if !managed && !exact {
			continue
		}
		if i := slices.IndexFunc(found, func(have readable) bool { return have.key == src.key }); i >= 0 {
			found[i].exact = found[i].exact || exact
		} else {
			found = append(found, readable{source: src, exact: exact})
		}
	}
	return found
}

// find looks for a file that another instance presented. A file that is known is
// returned at once; for any other the storage is read, by a read that begins after
// the call. When too many calls wait already, or the storage takes too long, what
// was last known counts. The error tells that a storage failed, which does not mean
// that there is no file. Not every error is returned.
func (r *remote) find(ctx context.Context, host, path string) (*file, error) {
	// Most of what strangers make up cannot be a file.
	if checkHost(host) != nil || checkFileName(strings.TrimPrefix(path, PathPrefix)) != nil {
		return nil, nil
	}
	storages := r.storages(host)
	if len(storages) == 0 {
		return nil, nil
	}
	for _, storage := range storages {
		if f := pickFile(storage.cache.known(host, knownAge), path); f != nil {
			return f, nil
		}
	}
	if r.held.Add(1) > maxHeld {
		r.held.Add(-1)
		for _, storage := range storages {
			if f := pickFile(storage.cache.known(host, 0), path); f != nil {
				return f, nil
			}
		}
		return nil, nil
	}
	defer r.held.Add(-1)

	host = strings.Clone(host) // it is kept, and may be a part of a long request line
	ctx, cancel := context.WithTimeoutCause(ctx, holdTime, fmt.Errorf("storage has not answered within %s", holdTime))
	defer cancel()
	var errs []error
	for _, storage := range storages {
		files, err := storage.cache.read(ctx, storage, host)
		errs = append(errs, err)
		if f := pickFile(files, path); f != nil {
			return f, r.warn(errs...)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		errs = append(errs, context.Cause(ctx))
	}
	return nil, r.warn(errs...)
}

// known returns the files that other instances presented on the host, as this one
// last saw them.
func (r *remote) known(host string) (files []*file) {
	if checkHost(host) != nil {
		return nil
	}
	for _, storage := range r.storages(host) {
		files = append(files, storage.cache.known(host, 0)...)
	}
	return files
}

// warn returns the errors, or nil when others were returned just now: requests
// must not fill the logs.
func (r *remote) warn(errs ...error) error {
	err := errors.Join(errs...)
	now, last := time.Now().UnixNano(), r.warned.Load()
	if err == nil || now-last < int64(warnInterval) || !r.warned.CompareAndSwap(last, now) {
		return nil
	}
	return err
}

// forget drops what is known of the hosts.
func (r *remote) forget(hosts ...string) {
	for _, src := range r.all() {
		src.cache.mu.Lock()
		for _, host := range hosts {
			delete(src.cache.hosts, host)
		}
		src.cache.mu.Unlock()
	}
}

// known returns the host's files if the read that found them began less than the
// age ago; with no age it returns the last ones known.
func (c *cache) known(host string, age time.Duration) []*file {
	c.mu.Lock()
	files := c.hosts[host]
	c.mu.Unlock()
	if files == nil {
		return nil
	}
	if age == 0 {
		return files.known()
	}
	recent, _ := files.last(age)
	return recent
}

// read returns the host's files as they are now.
func (c *cache) read(ctx context.Context, storage readable, host string) ([]*file, error) {
	var warning error
	if !storage.exact {
		folders, err := c.folders.after(ctx, func(ctx context.Context, last map[string]struct{}) (map[string]struct{}, error) {
			return readFolders(ctx, storage.storage, last)
		})
		if !slices.ContainsFunc(servedOn(host), func(name string) bool { _, ok := folders[keyPart(name)]; return ok }) {
			return nil, err
		}
		warning = err
	}
	files := c.host(host)
	if files == nil {
		return nil, warning
	}
	found, err := files.after(ctx, func(ctx context.Context, last []*file) ([]*file, error) {
		return readHost(ctx, storage.storage, host, last)
	})
	return found, errors.Join(warning, err)
}

// readFolders returns the names of the folders of all hosts, or the last ones if
// the storage fails.
func readFolders(ctx context.Context, storage certmagic.Storage, last map[string]struct{}) (map[string]struct{}, error) {
	names, err := listChildren(ctx, storage, storagePrefix)
	if err != nil {
		return last, fmt.Errorf("listing %s: %w", storagePrefix, err)
	}
	folders := make(map[string]struct{}, len(names))
	for _, name := range names {
		folders[name] = struct{}{}
	}
	return folders, nil
}

// host returns what is remembered of a host, and makes room for it if that is
// nothing. It is nil if there is no room.
func (c *cache) host(host string) *shared[[]*file] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if files := c.hosts[host]; files != nil {
		return files
	}
	if len(c.hosts) >= maxHosts {
		maps.DeleteFunc(c.hosts, func(_ string, files *shared[[]*file]) bool {
			if len(files.known()) == 0 {
				return files.idle(0)
			}
			return files.idle(knownAge)
		})
	}
	if len(c.hosts) >= maxHosts {
		return nil
	}
	files := new(shared[[]*file])
	c.hosts[host] = files
	return files
}
