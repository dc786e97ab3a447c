package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// replicating is a storage whose changes become visible through another handle later.
type replicating struct {
	certmagic.Storage
	other *memStorage
	mu    sync.Mutex
	late  time.Duration
}

func (r *replicating) set(late time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = late
}

func (r *replicating) after(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	time.AfterFunc(r.late, do)
}

func (r *replicating) Store(ctx context.Context, key string, value []byte) error {
	err := r.Storage.Store(ctx, key, value)
	r.after(func() { _ = r.other.Store(ctx, key, value) })
	return err
}

func (r *replicating) Delete(ctx context.Context, key string) error {
	err := r.Storage.Delete(ctx, key)
	r.after(func() { _ = r.other.Delete(ctx, key) })
	return err
}

// open returns the other handle.
func (r *replicating) open(context.Context, certmagic.Storage) (certmagic.Storage, func(), error) {
	return r.other, func() {}, nil
}

// onReplica makes a process whose storage shows writes through another handle that late, and tests
// the storage.
func (w *world) onReplica(late, settle time.Duration) (*process, *replicating) {
	r := &replicating{other: newMemStorage(), late: late}
	p := w.start(nil, func(f *flow) {
		r.Storage = f.ledger.Storage
		f.ledger.Storage = r
		f.rules.settle = settle
	})
	ctx, cancel := context.WithCancel(w.ctx)
	w.tb.Cleanup(cancel)
	go p.tryStorage(ctx, r.open)
	return p, r
}

// TestLateStorage: if one server may not see in time what another has written, nothing is bought:
// neither later, nor if the first order was about to be paid for while the storage was being tested.
func TestLateStorage(t *testing.T) {
	for _, c := range []struct{ late, settle, first time.Duration }{
		{5 * time.Second, time.Second, time.Minute},
		{5 * time.Second, time.Second, 0},
		{300 * time.Millisecond, 100 * time.Millisecond, 0},
	} {
		inBubble(t, fmt.Sprintf("%s for %s, asked after %s", c.late, c.settle, c.first), func(t *testing.T) {
			w := newWorld(t, nil)
			p, _ := w.onReplica(c.late, c.settle)
			time.Sleep(c.first)
			_, err := p.attempt(t.Context(), "example.com")
			late, ok := errors.AsType[*LateStorageError](err)
			if !ok || late.Late > c.late || !strings.Contains(err.Error(), "example.com") || !strings.Contains(err.Error(), "set settle") {
				t.Errorf("error = %v", err)
			}
			w.wantCharges(0)
			if ok && suggestedSettle(late.Late) < late.Late {
				t.Errorf("a settle of %s is suggested", suggestedSettle(late.Late))
			}
			// The next configuration has a longer settle. It needs no test of its own.
			time.Sleep(time.Minute)
			p.reload(func(f *flow) { f.rules.settle = 10 * time.Second })
			p.mustObtainWithin("example.com", day)
			w.wantCharges(1)
		})
	}
}

// TestStorageIsTriedAgain: a storage that keeps to settle is tested once. One that was late is
// tested again, and orders are placed once it no longer is.
func TestStorageIsTriedAgain(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p, r := w.onReplica(5*time.Second, time.Second)
		time.Sleep(time.Minute)
		if _, err := p.attempt(t.Context(), "example.com"); err == nil {
			t.Error("there is a certificate")
		}
		time.Sleep(time.Hour)
		w.wantCharges(0)
		r.set(0)
		p.untilServed(day, "example.com")
		w.wantCharges(1)
		// The test is over, whatever the storage does now.
		r.set(time.Hour)
		time.Sleep(day)
		p.mustObtain("example.net")
	})
}

// TestStorageThatShowsNothing: a storage that never shows what another handle wrote is late, too,
// although its test cannot be completed.
func TestStorageThatShowsNothing(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p, _ := w.onReplica(1000*day, time.Second)
		for range 3 {
			time.Sleep(5 * time.Minute)
			if _, err := p.attempt(t.Context(), "example.com"); err == nil {
				t.Error("there is a certificate")
			} else if _, ok := errors.AsType[*LateStorageError](err); !ok {
				t.Errorf("error = %v", err)
			}
		}
		w.wantCharges(0)
	})
}

// TestStorageOfTestServiceIsNotTried: the storage of a test service, whose settle is zero, is not
// tested, because nothing is at stake.
func TestStorageOfTestServiceIsNotTried(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, nil)
		p, _ := w.onReplica(5*time.Second, 0)
		time.Sleep(time.Minute)
		p.mustObtain("example.com")
		w.wantCharges(1)
	})
}

func TestOpenAgain(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct {
		storage certmagic.Storage
		ended   int
		fails   bool
	}{
		"file system":            {storage: &certmagic.FileStorage{Path: folder}},
		"module":                 {storage: &moduleStorage{Root: folder}, ended: 1},
		"no module":              {storage: newMemStorage(), fails: true},
		"module that cannot":     {storage: &moduleStorage{Root: folder, Broken: "no"}, fails: true, ended: 1},
		"module that panics":     {storage: &moduleStorage{Root: folder, Broken: "panic"}, fails: true, ended: 1},
		"module of other config": {storage: &moduleStorage{Root: folder, Broken: "config"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			storagesEnded = 0
			again, end, err := openAgain(t.Context(), c.storage)
			if (err != nil) != c.fails || err != nil && !errors.Is(err, errOneHandle) {
				t.Fatal(err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows what the module says: %v", err)
			}
			if err == nil {
				if again == c.storage {
					t.Error("it is the same handle")
				}
				one := &certmagic.FileStorage{Path: folder}
				if _, err := ledger.Lateness(t.Context(), one, again, nil); err != nil {
					t.Error(err)
				}
				end()
			}
			if storagesEnded != c.ended {
				t.Errorf("%d handles were cleaned up, want %d", storagesEnded, c.ended)
			}
		})
	}
}

func init() { caddy.RegisterModule(new(moduleStorage)) }

// moduleStorage is a storage that is also its own Caddy module, as many are.
type moduleStorage struct {
	Root   string `json:"root,omitempty"`
	Broken string `json:"broken,omitempty"`

	certmagic.FileStorage `json:"-"`
}

// storagesEnded counts clean-ups.
var storagesEnded int

// MarshalJSON writes JSON that cannot be loaded again, if it is to be broken in that way.
func (s *moduleStorage) MarshalJSON() ([]byte, error) {
	if s.Broken == "config" {
		return []byte(`{"nobody":"knows this"}`), nil
	}
	return fmt.Appendf(nil, `{"root":%q,"broken":%q}`, s.Root, s.Broken), nil
}

// CaddyModule returns the Caddy module information.
func (*moduleStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.issuer_test", New: func() caddy.Module { return new(moduleStorage) }}
}

// Provision implements caddy.Provisioner.
func (s *moduleStorage) Provision(ctx caddy.Context) error {
	ctx.Logger().Debug("opened")
	s.Path = s.Root
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *moduleStorage) CertMagicStorage() (certmagic.Storage, error) {
	switch s.Broken {
	case "no":
		return nil, errors.New("broken, with the secret in its URL")
	case "panic":
		panic("broken, with a secret")
	}
	return s, nil
}

// Cleanup implements caddy.CleanerUpper.
func (*moduleStorage) Cleanup() error {
	storagesEnded++
	return nil
}
