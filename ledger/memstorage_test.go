package ledger

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// memStorage is a storage in memory. The hook sees each call before it takes effect, and can make it
// fail.
type memStorage struct {
	mu   sync.Mutex
	data map[string]string
	hook func(call, key string) error
}

func newMemStorage() *memStorage { return &memStorage{data: make(map[string]string)} }

func (s *memStorage) call(call, key string) error {
	if s.hook != nil {
		return s.hook(call, key)
	}
	return nil
}

func (s *memStorage) Store(_ context.Context, key string, value []byte) error {
	if err := s.call("store", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key] = string(value)
	return nil
}

func (s *memStorage) Load(_ context.Context, key string) ([]byte, error) {
	if err := s.call("load", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(value), nil
}

func (s *memStorage) Delete(_ context.Context, key string) error {
	if err := s.call("delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.data[key]; !ok {
		return fs.ErrNotExist
	}
	delete(s.data, key)
	return nil
}

func (s *memStorage) Exists(_ context.Context, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.data[key]
	return ok
}

func (s *memStorage) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	if err := s.call("list", prefix); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.data {
		if strings.HasPrefix(key, prefix+"/") {
			keys = append(keys, key)
		}
	}
	if keys == nil {
		return nil, fs.ErrNotExist
	}
	slices.Sort(keys)
	return keys, nil
}

func (s *memStorage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{Key: key}, nil
}

func (*memStorage) Lock(context.Context, string) error   { return nil }
func (*memStorage) Unlock(context.Context, string) error { return nil }
