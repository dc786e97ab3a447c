package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
)

// countingStorage is a file storage that counts operations. A lock is one operation, its
// unlocking included.
type countingStorage struct {
	*certmagic.FileStorage
	locker certmagic.Locker

	loads, stores, deletes, lists, locks atomic.Int64

	// own counts those, except locks, on keys with the prefix: the issuer's own part of
	// the storage.
	own    atomic.Int64
	prefix string
}

// Where the issuers keep their own keys.
const (
	ourKeys     = "commercial/"
	zeroSSLKeys = "zerossl/"
)

func newStorage(dir string) *countingStorage {
	files := &certmagic.FileStorage{Path: dir}
	return &countingStorage{FileStorage: files, locker: files, prefix: ourKeys}
}

func (s *countingStorage) all() int64 {
	return s.loads.Load() + s.stores.Load() + s.deletes.Load() + s.lists.Load() + s.locks.Load()
}

// count counts an operation on a key.
func (s *countingStorage) count(kind *atomic.Int64, key string) {
	kind.Add(1)
	if strings.HasPrefix(key, s.prefix) {
		s.own.Add(1)
	}
}

func (s *countingStorage) Lock(ctx context.Context, name string) error {
	s.locks.Add(1)
	return s.locker.Lock(ctx, name)
}

func (s *countingStorage) Unlock(ctx context.Context, name string) error {
	return s.locker.Unlock(ctx, name)
}

func (s *countingStorage) Store(ctx context.Context, key string, value []byte) error {
	s.count(&s.stores, key)
	return s.FileStorage.Store(ctx, key, value)
}

// Load counts as a read, as do Exists and Stat.
func (s *countingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	s.count(&s.loads, key)
	return s.FileStorage.Load(ctx, key)
}

func (s *countingStorage) Exists(ctx context.Context, key string) bool {
	s.count(&s.loads, key)
	return s.FileStorage.Exists(ctx, key)
}

func (s *countingStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.count(&s.loads, key)
	return s.FileStorage.Stat(ctx, key)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	s.count(&s.deletes, key)
	return s.FileStorage.Delete(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	s.count(&s.lists, prefix)
	return s.FileStorage.List(ctx, prefix, recursive)
}

// memoryLocks are locks of this process alone. Those in files each leave a goroutine
// behind for some seconds, which would be in the way when goroutines are counted. The
// zero value is ready for use.
type memoryLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Lock implements certmagic.Locker.
func (l *memoryLocks) Lock(ctx context.Context, name string) error {
	for {
		l.mu.Lock()
		if l.held == nil {
			l.held = make(map[string]chan struct{})
		}
		released, taken := l.held[name]
		if !taken {
			l.held[name] = make(chan struct{})
		}
		l.mu.Unlock()
		if !taken {
			return nil
		}
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock implements certmagic.Locker.
func (l *memoryLocks) Unlock(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	released, taken := l.held[name]
	if !taken {
		return fmt.Errorf("%s is not locked", name)
	}
	delete(l.held, name)
	close(released)
	return nil
}

// Interface guards
var (
	_ certmagic.Storage = (*countingStorage)(nil)
	_ certmagic.Locker  = (*memoryLocks)(nil)
)
