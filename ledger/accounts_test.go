package ledger

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// TestPrefixTellsAccountsApart: different accounts have different ledgers, however similar their
// names are.
func TestPrefixTellsAccountsApart(t *testing.T) {
	accounts := []string{
		"api.example.com/team", "api.example.comteam", "api.example.com_team", "api.example.com team", "api.example.com%2fteam",
		"API.example.com/team", "api.example.com/team/", "api.example.com//team", "api.example.com/te am", "api.example.com/../team",
		"..", ".", "", "_", "_2e", "a..b", "a_2e.b", "a_._2e", "日本", "日", "api.example.com\\team", "a:b", "a-b", "a+b", "ab",
	}
	seen := make(map[string]string)
	for _, account := range accounts {
		prefix := Prefix("racent", account)
		// certmagic and file systems may fold characters of keys.
		folded := strings.ToLower(certmagic.StorageKeys.Safe(prefix))
		if other, taken := seen[folded]; taken {
			t.Errorf("%q and %q share %s", account, other, prefix)
		}
		seen[folded] = account
		if account != "" && strings.Count(prefix, "/") != 2 || strings.Contains(prefix, "..") {
			t.Errorf("%q has the prefix %s", account, prefix)
		}
	}
	if Prefix("racent", "digicert") == Prefix("racentdigicert", "") || Prefix("a", "b") == Prefix("ab", "") {
		t.Error("vendors share a ledger")
	}
}

// files is a storage that counts its reads.
type files struct {
	certmagic.Storage
	mu    sync.Mutex
	data  map[string]string
	reads int
}

func (s *files) Store(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key] = string(value)
	return nil
}

func (s *files) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	value, ok := s.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(value), nil
}

func (s *files) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.data {
		if strings.HasPrefix(key, prefix+"/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// TestRecall: entries with a certificate are read once, and then every few hours, a few at a time.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		storage := &files{data: make(map[string]string)}
		writer := &Ledger{Storage: storage, Prefix: "commercial/a/b", Memory: new(Memory)}
		reader := &Ledger{Storage: storage, Prefix: "commercial/a/b", Memory: new(Memory)}
		var first *Entry
		for range n {
			e := &Entry{
				ID: writer.NewID(), Names: []string{"example.com"}, State: Issued, OrderID: "1", Issued: 1,
				Term: vendors.Term{Years: 1}, Paid: time.Now(), Ends: time.Now().AddDate(1, 0, 0), Certificate: &Certificate{Serial: "1"},
			}
			if err := writer.Create(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			first = e
		}
		look := func() {
			if err := reader.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := reader.Recall(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		look()
		look()
		if storage.reads != n {
			t.Errorf("%d reads of %d entries", storage.reads, n)
		}
		if _, err := writer.Write(t.Context(), first, func(e *Entry) { e.Flag = &Flag{Reason: "by a person"} }); err != nil {
			t.Fatal(err)
		}
		storage.reads = 0
		for range 12 * 6 {
			time.Sleep(10 * time.Minute)
			look()
		}
		if storage.reads < n || storage.reads > 2*n {
			t.Errorf("%d reads of %d entries in half a day", storage.reads, n)
		}
		known := slices.IndexFunc(reader.Memory.All(), func(b *Brief) bool { return b.ID == first.ID && b.Entry != nil && b.Entry.Flag != nil })
		if known < 0 {
			t.Error("what was changed meanwhile is not known")
		}
	})
}
