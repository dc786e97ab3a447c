package dcv

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// memoryStorage is a certmagic storage that counts the operations on it. Like an object store, it
// has only those folders that keys imply. It has no locks.
type memoryStorage struct {
	name string

	mu     sync.Mutex
	values map[string][]version
	ops    map[string]int // by operation and key, for example "load a/b"
	fail   error          // returned by all operations
	gate   chan struct{}  // if not nil, Load and List wait for it
	delay  time.Duration  // before Load and List do anything
	lag    time.Duration  // until a change becomes visible
}

// version is a value from the given time on. Nil means none.
type version struct {
	from time.Time
	data []byte
}

func newMemoryStorage(name string) *memoryStorage {
	return &memoryStorage{name: name, values: map[string][]version{}, ops: map[string]int{}}
}

func (m *memoryStorage) String() string { return m.name }

func (m *memoryStorage) Lock(context.Context, string) error   { return errors.New("nothing is locked") }
func (m *memoryStorage) Unlock(context.Context, string) error { return errors.New("nothing is locked") }

// begin counts the operation and returns with the mutex held.
func (m *memoryStorage) begin(ctx context.Context, op, key string, read bool) error {
	m.mu.Lock()
	m.ops[op+" "+key]++
	gate, delay := m.gate, m.delay
	m.mu.Unlock()
	if read && gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if read && delay > 0 {
		time.Sleep(delay) // of the bubble
	}
	m.mu.Lock()
	return errors.Join(ctx.Err(), m.fail)
}

func (m *memoryStorage) put(key string, data []byte) {
	m.values[key] = append(m.values[key], version{from: time.Now().Add(m.lag), data: data})
}

func (m *memoryStorage) get(key string) []byte {
	var data []byte
	for _, v := range m.values[key] {
		if !v.from.After(time.Now()) {
			data = v.data
		}
	}
	return data
}

func (m *memoryStorage) Store(ctx context.Context, key string, value []byte) error {
	err := m.begin(ctx, "store", key, false)
	defer m.mu.Unlock()
	if err == nil {
		m.put(key, value)
	}
	return err
}

func (m *memoryStorage) Load(ctx context.Context, key string) ([]byte, error) {
	err := m.begin(ctx, "load", key, true)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if data := m.get(key); data != nil {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

// Delete also deletes everything below the key, as a file storage does.
func (m *memoryStorage) Delete(ctx context.Context, key string) error {
	err := m.begin(ctx, "delete", key, false)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for have := range m.values {
		if have == key || strings.HasPrefix(have, key+"/") {
			m.put(have, nil)
		}
	}
	return nil
}

func (m *memoryStorage) Exists(ctx context.Context, key string) bool {
	_, err := m.Load(ctx, key)
	return err == nil
}

func (m *memoryStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	err := m.begin(ctx, "list", prefix, true)
	defer m.mu.Unlock()
	if err != nil || recursive {
		return nil, errors.Join(err, ctx.Err())
	}
	var keys []string
	for key := range m.values {
		rest, ok := strings.CutPrefix(key, prefix+"/")
		if !ok || m.get(key) == nil {
			continue
		}
		child, _, isFolder := strings.Cut(rest, "/")
		child = path.Join(prefix, child)
		if isFolder {
			child += "/" // some storages mark folders like this
		}
		if !slices.Contains(keys, child) {
			keys = append(keys, child)
		}
	}
	return keys, nil
}

func (m *memoryStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, errors.New("not needed")
}

// count returns how many operations there were that begin with the prefix.
func (m *memoryStorage) count(prefix string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for op, times := range m.ops {
		if strings.HasPrefix(op, prefix) {
			n += times
		}
	}
	return n
}

func (m *memoryStorage) resetCount() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.ops)
}

// set changes how the storage behaves, under its mutex.
func (m *memoryStorage) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// keys returns those that are visible.
func (m *memoryStorage) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for key := range m.values {
		if m.get(key) != nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
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
