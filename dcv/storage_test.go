package dcv

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"
)

// memoryStorage is a certmagic storage that counts what is done to it.
type memoryStorage struct {
	name string

	mu     sync.Mutex
	values map[string][]byte
	locks  map[string]chan struct{}
	loads  map[string]int
	fail   error         // returned by Load, Store and Delete
	gate   chan struct{} // if not nil, Load waits for it
}

func newMemoryStorage(name string) *memoryStorage {
	return &memoryStorage{name: name, values: map[string][]byte{}, locks: map[string]chan struct{}{}, loads: map[string]int{}}
}

func (m *memoryStorage) String() string { return m.name }

func (m *memoryStorage) Lock(ctx context.Context, key string) error {
	for {
		m.mu.Lock()
		held, ok := m.locks[key]
		if !ok {
			m.locks[key] = make(chan struct{})
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memoryStorage) Unlock(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	held, ok := m.locks[key]
	if !ok {
		return errors.New("not locked")
	}
	delete(m.locks, key)
	close(held)
	return nil
}

func (m *memoryStorage) Store(ctx context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), m.fail); err != nil {
		return err
	}
	if _, ok := m.locks[key]; !ok {
		return errors.New("written without its lock")
	}
	m.values[key] = value
	return nil
}

func (m *memoryStorage) Load(ctx context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	m.loads[key]++
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), m.fail); err != nil {
		return nil, err
	}
	value, ok := m.values[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return value, nil
}

func (m *memoryStorage) Delete(ctx context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), m.fail); err != nil {
		return err
	}
	delete(m.values, key)
	return nil
}

func (m *memoryStorage) Exists(_ context.Context, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.values[key]
	return ok
}

func (m *memoryStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, errors.New("listing is not bounded and must not happen")
}

func (m *memoryStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, errors.New("not needed")
}

func (m *memoryStorage) loaded(host string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loads[hostKey(host)]
}

func (m *memoryStorage) allLoads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, loads := range m.loads {
		n += loads
	}
	return n
}

func (m *memoryStorage) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memoryStorage) keys() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

var _ certmagic.Storage = (*memoryStorage)(nil)

func readLines(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}
