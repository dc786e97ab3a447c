package dcv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/singleflight"
)

// A host has one key in storage that holds all of its live challenges. A handler
// of another instance therefore learns everything about a host with a single
// read, whatever paths are asked for: strangers who ask for random files neither
// cause more reads nor use up those that a CA needs. The price is that writers
// must merge, under a lock of the storage.
const storagePrefix = "commercial/dcv"

const (
	// readInterval is the shortest time between two reads of a host.
	readInterval = time.Second

	// readTimeout bounds one read. CAs give up after about ten seconds.
	readTimeout = 5 * time.Second

	// maxRemoteHosts bounds the hosts remembered, and with readInterval the reads
	// per second, where the managed hosts are without number (on-demand TLS).
	maxRemoteHosts = 1024
)

func hostKey(host string) string {
	return path.Join(storagePrefix, certmagic.StorageKeys.Safe(host)+".json")
}

// hostRecord is what stands in storage.
type hostRecord struct {
	Host  string       `json:"host"`
	Files []fileRecord `json:"files"` // in the order in which they are tried
}

type fileRecord struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Path    string    `json:"path"`
	Body    string    `json:"body"`
	Expires time.Time `json:"expires,omitzero"`
}

// updateHosts changes the records of the names and their twins. It goes on after
// an error, so that one bad key does not keep a file from the other hosts, and
// returns all of them.
func updateHosts(ctx context.Context, storage certmagic.Storage, names []string, change func(host string, files []*file) []*file) error {
	hosts := make(map[string]struct{}, 2*len(names))
	for _, name := range names {
		for _, host := range servedOn(name) {
			hosts[host] = struct{}{}
		}
	}
	var errs []error
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		if err := updateHost(ctx, storage, host, change); err != nil {
			errs = append(errs, fmt.Errorf("sharing challenge for %s: %w", host, err))
		}
	}
	return errors.Join(errs...)
}

func updateHost(ctx context.Context, storage certmagic.Storage, host string, change func(host string, files []*file) []*file) (err error) {
	key := hostKey(host)
	if err := storage.Lock(ctx, key); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	defer func() {
		if unlockErr := storage.Unlock(context.WithoutCancel(ctx), key); unlockErr != nil && err == nil {
			err = fmt.Errorf("unlocking: %w", unlockErr)
		}
	}()
	files, err := readHost(ctx, storage, host)
	broken := errors.Is(err, errBrokenRecord) // then it is written anew
	if err != nil && !broken {
		return err
	}
	existed := files != nil || broken
	files = change(host, files)
	files = slices.DeleteFunc(files, func(f *file) bool { return !f.live() })
	if len(files) == 0 {
		if !existed {
			return nil
		}
		if err := storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("deleting: %w", err)
		}
		return nil
	}
	record := hostRecord{Host: host}
	for _, f := range files {
		record.Files = append(record.Files, fileRecord{ID: f.id, Name: f.name, Path: f.path, Body: string(f.body), Expires: f.expires})
	}
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	if err := storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	return nil
}

// errBrokenRecord is what a record in storage is that is not ours.
var errBrokenRecord = errors.New("broken record")

// readHost returns the stored files of a host, nil if it has no record. The
// entries are checked, because the storage may be shared with others.
func readHost(ctx context.Context, storage certmagic.Storage, host string) ([]*file, error) {
	data, err := storage.Load(ctx, hostKey(host))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading: %w", err)
	}
	var record hostRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("decoding: %w: %w", errBrokenRecord, err)
	}
	files := make([]*file, 0, len(record.Files))
	for _, r := range record.Files {
		ch := Challenge{ID: r.ID, Hosts: []string{r.Name}, Path: r.Path, Body: []byte(r.Body), Expires: r.Expires}
		if ch.check() == nil && slices.Contains(servedOn(r.Name), host) {
			files = append(files, newFile(ch, r.Name))
		}
	}
	return files, nil
}

// source is a storage and the hosts for which it may be read.
type source struct {
	storage certmagic.Storage
	key     string
	managed func(host string) bool
}

// remote knows what other instances of a cluster have presented.
type remote struct {
	sources atomic.Pointer[[]*source]
	flight  singleflight.Group

	mu    sync.Mutex // guards changes of sources, and hosts
	hosts map[string]*remoteHost
}

type remoteHost struct {
	reading bool // the other fields do not count yet
	read    time.Time
	files   []*file
}

func (h *remoteHost) fresh() bool { return !h.reading && time.Since(h.read) < readInterval }

// Manage allows the storage to be read for hosts for which managed returns true,
// or returns true for their twin; managed is given normalized hosts, must be
// quick and may be called concurrently. The permission ends when release is
// called. Those of overlapping configs may overlap; the same storage is then read
// once.
func (s *Store) Manage(storage certmagic.Storage, managed func(host string) bool) (release func()) {
	if storage == nil || managed == nil {
		return func() {}
	}
	added := &source{storage: storage, key: storageIdentity(storage), managed: managed}
	s.remote.change(func(sources []*source) []*source { return append([]*source{added}, sources...) })
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
	var next []*source
	if old := r.sources.Load(); old != nil {
		next = slices.Clone(*old)
	}
	next = f(next)
	r.sources.Store(&next)
}

// storages returns those that may be read for the host, each once.
func (r *remote) storages(host string) []*source {
	sources := r.sources.Load()
	if sources == nil {
		return nil
	}
	var found []*source
	twin := Twin(host)
	for _, src := range *sources {
		if slices.ContainsFunc(found, func(have *source) bool { return have.key == src.key }) {
			continue
		}
		if src.managed(host) || twin != "" && src.managed(twin) {
			found = append(found, src)
		}
	}
	return found
}

// find looks for a file that another instance presented. An error tells that a
// storage could not be read; it is returned once, not for each request that
// waited for that read.
func (r *remote) find(ctx context.Context, host, path string) (*file, error) {
	storages := r.storages(host)
	if len(storages) == 0 {
		return nil, nil
	}
	if files, ok := r.cached(host); ok {
		return pickFile(files, path), nil
	}
	var err error
	files, _, _ := r.flight.Do(host, func() (any, error) {
		files, ok := r.cached(host)
		if !ok {
			files, err = r.read(ctx, host, storages)
		}
		return files, nil
	})
	return pickFile(files.([]*file), path), err
}

func (r *remote) read(ctx context.Context, host string, storages []*source) ([]*file, error) {
	if !r.reserve(host) {
		return nil, nil
	}
	// Others wait for this read too, so it does not end with the first visitor.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	var files []*file
	var errs []error
	for _, src := range storages {
		stored, err := readHost(ctx, src.storage, host)
		if err != nil {
			errs = append(errs, err)
		}
		files = append(files, stored...)
	}
	r.mu.Lock()
	r.hosts[host] = &remoteHost{read: time.Now(), files: files}
	r.mu.Unlock()
	return files, errors.Join(errs...)
}

func (r *remote) cached(host string) ([]*file, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.hosts[host]
	if known == nil || !known.fresh() {
		return nil, false
	}
	return known.files, true
}

// reserve makes room for a host. It fails when too many were read just now.
func (r *remote) reserve(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hosts == nil {
		r.hosts = make(map[string]*remoteHost)
	}
	if _, ok := r.hosts[host]; !ok && len(r.hosts) >= maxRemoteHosts {
		maps.DeleteFunc(r.hosts, func(_ string, known *remoteHost) bool { return !known.reading && !known.fresh() })
		if len(r.hosts) >= maxRemoteHosts {
			return false
		}
	}
	r.hosts[host] = &remoteHost{reading: true}
	return true
}

func (r *remote) forget(hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, host := range hosts {
		delete(r.hosts, host)
	}
}
