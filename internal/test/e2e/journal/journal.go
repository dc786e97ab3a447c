// Package journal records what is done with a storage of the end-to-end tests.
package journal

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/certmagic"
)

// Storage is what is recorded: all that certmagic does with the storages of tests.
type Storage interface {
	certmagic.Storage
	certmagic.TryLocker
}

// Note returns a storage that records each call in a file, in the order in which they
// begin: the time in nanoseconds, what is done, and the key. Unlocking is not recorded.
// What is already in the file stays there.
func Note(s Storage, file string) (Storage, error) {
	journal, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &noting{s, journal}, nil
}

type noting struct {
	Storage
	journal *os.File
}

func (s *noting) note(what, key string) {
	// One write per line, so that lines stay whole.
	fmt.Fprintf(s.journal, "%d %s %s\n", time.Now().UnixNano(), what, key)
}

// Store implements certmagic.Storage.
func (s *noting) Store(ctx context.Context, key string, value []byte) error {
	s.note("store", key)
	return s.Storage.Store(ctx, key, value)
}

// Load implements certmagic.Storage.
func (s *noting) Load(ctx context.Context, key string) ([]byte, error) {
	s.note("load", key)
	return s.Storage.Load(ctx, key)
}

// Delete implements certmagic.Storage.
func (s *noting) Delete(ctx context.Context, key string) error {
	s.note("delete", key)
	return s.Storage.Delete(ctx, key)
}

// Exists implements certmagic.Storage.
func (s *noting) Exists(ctx context.Context, key string) bool {
	s.note("exists", key)
	return s.Storage.Exists(ctx, key)
}

// List implements certmagic.Storage.
func (s *noting) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	s.note("list", prefix)
	return s.Storage.List(ctx, prefix, recursive)
}

// Stat implements certmagic.Storage.
func (s *noting) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.note("stat", key)
	return s.Storage.Stat(ctx, key)
}

// Lock implements certmagic.Locker.
func (s *noting) Lock(ctx context.Context, name string) error {
	s.note("lock", name)
	return s.Storage.Lock(ctx, name)
}

// TryLock implements certmagic.TryLocker.
func (s *noting) TryLock(ctx context.Context, name string) (bool, error) {
	s.note("lock", name)
	return s.Storage.TryLock(ctx, name)
}
