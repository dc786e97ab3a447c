package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/certmagic"
)

// noting is a storage that notes each call, in the order in which they begin. Unlocking is
// part of locking.
type noting struct {
	*reporting
	journal *os.File
}

func (s *noting) note(what, key string) {
	// One write per line, so that lines stay whole.
	fmt.Fprintf(s.journal, "%d %s %s\n", time.Now().UnixNano(), what, key)
}

// Store implements certmagic.Storage.
func (s *noting) Store(ctx context.Context, key string, value []byte) error {
	s.note("store", key)
	return s.reporting.Store(ctx, key, value)
}

// Load implements certmagic.Storage.
func (s *noting) Load(ctx context.Context, key string) ([]byte, error) {
	s.note("load", key)
	return s.reporting.Load(ctx, key)
}

// Delete implements certmagic.Storage.
func (s *noting) Delete(ctx context.Context, key string) error {
	s.note("delete", key)
	return s.reporting.Delete(ctx, key)
}

// Exists implements certmagic.Storage.
func (s *noting) Exists(ctx context.Context, key string) bool {
	s.note("exists", key)
	return s.reporting.Exists(ctx, key)
}

// List implements certmagic.Storage.
func (s *noting) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	s.note("list", prefix)
	return s.reporting.List(ctx, prefix, recursive)
}

// Stat implements certmagic.Storage.
func (s *noting) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.note("stat", key)
	return s.reporting.Stat(ctx, key)
}

// Lock implements certmagic.Locker.
func (s *noting) Lock(ctx context.Context, name string) error {
	s.note("lock", name)
	return s.reporting.Lock(ctx, name)
}

// TryLock implements certmagic.TryLocker.
func (s *noting) TryLock(ctx context.Context, name string) (bool, error) {
	s.note("lock", name)
	return s.reporting.TryLock(ctx, name)
}

// Interface guards
var (
	_ certmagic.Storage   = (*noting)(nil)
	_ certmagic.TryLocker = (*noting)(nil)
)
