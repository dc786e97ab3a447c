package dcv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// hostileTexts are IDs and hosts that try to get into other places.
var hostileTexts = []string{
	"", ".", "..", "...", "../..", "a/../b", "/etc/passwd", "a/b", `a\b`, "a b", "A", "a", "a.", ".a", "a..b", "a.b", "_", "__", "_61",
	"a_", "ä", "Ä", "CON", "con", "a:b", "a-b", "a+b", "a_plus_b", "*.a", "wildcard_.a", "a%2fb", "a\x00b", "\xff", "ﬀ", "ff",
	"fe80::1%eth0/../..", "x.json", "x.json/", strings.Repeat("x", 253), strings.Repeat("x", 254), strings.Repeat("/", 256),
	strings.Repeat("a.", 100), strings.Repeat("a.", 101), "a@b", "~", "=", "#?",
}

func checkKeyPart(t *testing.T, text string) string {
	t.Helper()
	part := keyPart(text)
	switch {
	case part == "" || part == "." || part == ".." || len(part) > maxKeyPart:
		t.Errorf("%q becomes %q", text, part)
	case path.Base(part) != part || path.Clean(part) != part || strings.Trim(part, ".") != part:
		t.Errorf("%q is not a plain component: %q", text, part)
	case certmagic.StorageKeys.Safe(part) != part:
		t.Errorf("%q becomes %q, which storages may change to %q", text, part, certmagic.StorageKeys.Safe(part))
	}
	return part
}

func TestKeyPart(t *testing.T) {
	found := map[string]string{}
	for _, text := range hostileTexts {
		part := checkKeyPart(t, text)
		if other, ok := found[part]; ok {
			t.Errorf("%q and %q both become %q", text, other, part)
		}
		found[part] = text
	}
	for text, want := range map[string]string{
		"shop.example.com": "shop.example.com", "2001:db8::1": "2001_3adb8_3a_3a1", "Order 7/b": "_4frder_207_2fb", "a..b": "a._2eb",
	} {
		if got := keyPart(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func FuzzKeyPart(f *testing.F) {
	for i, text := range hostileTexts {
		f.Add(text, hostileTexts[len(hostileTexts)-1-i])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if checkKeyPart(t, a) == checkKeyPart(t, b) && a != b {
			t.Errorf("%q and %q become the same", a, b)
		}
	})
}

// FuzzStoredValue: whatever is in a storage, only valid files are served from it.
func FuzzStoredValue(f *testing.F) {
	good, err := encodeFiles("a", "example.com", []*file{newFile(challenge(f, "a", "A.txt", "one\n", "example.com"), "example.com")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, data := range foreignValues {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := decodeFiles(valueKey("example.com", "a"), "example.com", data)
		if err != nil && !errors.Is(err, errForeign) {
			t.Errorf("got error %v", err)
		}
		for _, file := range files {
			if bad := (Challenge{ID: file.id, Hosts: []string{file.name}, Path: file.path, Body: file.body}).check(); bad != nil || file.id != "a" || file.name != "example.com" {
				t.Errorf("got %+v: %v", file, bad)
			}
		}
	})
}

// foreignValues are stored under the key of "a" for example.com. They contain at most one good file,
// whose body is "x".
var foreignValues = []string{
	"", "{", `{"files":1}`, "null", "[]", `"text"`, "\xff\xfe",
	`{"id":"b","host":"example.com","files":[{"path":"/.well-known/pki-validation/A.txt","body":"x"}]}`,
	`{"id":"a","host":"example.org","files":[{"path":"/.well-known/pki-validation/A.txt","body":"x"}]}`,
	`{"id":"a","host":"www.example.com","files":[{"path":"/.well-known/pki-validation/A.txt","body":"x"}]}`,
	`{"id":"a","host":"example.com","files":[{"path":"/.well-known/pki-validation/A.txt","body":"x"}]}`,
	`{"id":"a","host":"example.com","presented":"2026-01-01T00:00:00Z","files":[{"path":"/etc/passwd","body":"y"},{"path":"/.well-known/pki-validation/../A.txt","body":"y"},
		{"path":"/.well-known/pki-validation/B.txt","body":"x","new":"field"},{"path":"/.well-known/pki-validation/C.txt","body":"\u0000"}]}`,
	`{"id":"a","host":"example.com","presented":"yesterday"}`,
	strings.Repeat(`{"id":"a","host":"example.com","files":[`, 10_000),
}

func TestForeignValues(t *testing.T) {
	for _, data := range foreignValues {
		storage := newMemoryStorage("shared")
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "good", "good.txt", "one", "example.com")))
		must(t, storage.Store(t.Context(), valueKey("example.com", "a"), []byte(data)))
		files, err := readHost(t.Context(), storage, "example.com", nil)
		if f := pickFile(files, PathPrefix+"good.txt"); f == nil || string(f.body) != "one" {
			t.Errorf("beside %.60q: got %v", data, files)
		}
		if !errors.Is(err, errForeign) {
			t.Errorf("%.60q: got error %v", data, err)
		}
		for _, f := range files {
			if f.id != "good" && string(f.body) != "x" {
				t.Errorf("%.60q: got %+v", data, f)
			}
		}
		if n := len(storage.keys()); n != 2 {
			t.Errorf("%.60q: %d keys are left; what is not ours must not be removed", data, n)
		}
	}
}

// TestStoredValueIsBounded: a value must be refused because of its length, before it is decoded into
// many times as much memory.
func TestStoredValueIsBounded(t *testing.T) {
	data := bytes.Repeat([]byte(`{"path":"","body":""},`), maxStoredValue)
	data = append([]byte(`{"id":"a","host":"example.com","files":[`), data...)
	data = append(data, `{"path":"","body":""}]}`...) // it is valid JSON
	const rounds = 100
	if each := allocatedBytes(rounds, func() {
		if _, err := decodeFiles(valueKey("example.com", "a"), "example.com", data); !errors.Is(err, errForeign) {
			t.Fatalf("got error %v", err)
		}
	}); each > 4<<10 {
		t.Errorf("%d bytes are allocated to refuse %d", each, len(data))
	}

	// The largest file that may be presented fits, whatever it consists of.
	for _, char := range []string{"x", `"`, "<", "\n", `\`, "\u2028", "\u00ff", "\U0001f600"} {
		storage := newMemoryStorage("shared")
		body := strings.Repeat(char, maxBody/len(char))
		must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", body, "example.com")))
		if files, err := readHost(t.Context(), storage, "example.com", nil); err != nil || len(files) != 1 || string(files[0].body) != body {
			t.Errorf("%d times %q: got %d files, %v", len(body), char, len(files), err)
		}
	}
	// Too many of them do not fit, and are then served nowhere.
	s, storage := NewStore(), newMemoryStorage("shared")
	var many []Challenge
	for i := range 5 {
		many = append(many, challenge(t, "a", fmt.Sprintf("%d.txt", i), strings.Repeat("x", maxBody), "example.com"))
	}
	if err := s.Present(t.Context(), storage, many...); err == nil || len(storage.keys()) != 0 {
		t.Errorf("got %v, %v", err, storage.keys())
	}
	wantNothing(t, s)
}

// TestStorageOperations: one presentation costs one Store for each name and one Delete, and nothing
// for the twin.
func TestStorageOperations(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	for names, hosts := range map[int][]string{
		1: {"example.com"},
		2: {"example.com", "www.example.com"},
		3: {"a.example.com", "b.example.com", "192.0.2.1"},
	} {
		storage.resetCount()
		must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", hosts...), challenge(t, "a", "b.txt", "two", hosts...)))
		must(t, s.CleanUp(t.Context(), storage, "a", hosts))
		if stores, deletes, all := storage.count("store"), storage.count("delete"), storage.count(""); stores != names || deletes != names || all != 2*names {
			t.Errorf("%v: %d stores, %d deletes, %d operations", hosts, stores, deletes, all)
		}
	}
	if keys := storage.keys(); len(keys) != 0 {
		t.Errorf("left in storage: %v", keys)
	}
}

// TestHostileIDs: IDs that differ only in what keys cannot express do not share a value.
func TestHostileIDs(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	ids := []string{"a", "A", "a/b", "a/../b", "..", ".", "../example.org/a", "a b", " a", "x.json", strings.Repeat("/", maxID), strings.Repeat("/", maxID-1)}
	for i, id := range ids {
		must(t, s.Present(t.Context(), storage, challenge(t, id, fmt.Sprintf("%d.txt", i), id, "example.com")))
	}
	for _, key := range storage.keys() {
		if path.Dir(key) != hostFolder("example.com") {
			t.Errorf("written outside its folder: %s", key)
		}
	}
	for i, id := range ids {
		files, err := readHost(t.Context(), storage, "www.example.com", nil)
		if err != nil || len(files) != len(ids)-i {
			t.Fatalf("%d files, want %d, %v", len(files), len(ids)-i, err)
		}
		if f := pickFile(files, PathPrefix+fmt.Sprintf("%d.txt", i)); f == nil || string(f.body) != id {
			t.Errorf("%q: got %v", id, f)
		}
		must(t, s.CleanUp(t.Context(), storage, id, []string{"example.com"}))
	}
}

// TestAbandonedValuesAreRemoved: what was abandoned is not served, and is removed when somebody
// reads it. The reader's clock may be wrong by an hour.
func TestAbandonedValuesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		soon := challenge(t, "soon", "soon.txt", "one", "example.com")
		soon.Expires = time.Now().Add(time.Hour)
		later := challenge(t, "soon", "later.txt", "two", "www.example.com")
		later.Expires = time.Now().Add(24 * time.Hour)
		must(t, s.Present(t.Context(), storage, soon, later, challenge(t, "never", "never.txt", "three", "example.com")))
		for _, step := range []struct {
			wait          time.Duration
			files, stored int
		}{{0, 3, 3}, {time.Hour, 2, 3}, {removeAfter, 2, 2}, {48 * time.Hour, 1, 1}} {
			time.Sleep(step.wait) // of the bubble
			files, err := readHost(t.Context(), storage, "example.com", nil)
			if err != nil || len(files) != step.files || len(storage.keys()) != step.stored {
				t.Errorf("after %s more: %d files, %d stored, %v", step.wait, len(files), len(storage.keys()), err)
			}
		}
	})
}

// TestStoredOrder: files of several orders are in the same order as in memory.
func TestStoredOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newMemoryStorage("shared")
		s := NewStore()
		for _, order := range []struct{ id, host string }{{"z", "example.com"}, {"m", "www.example.com"}, {"a", "example.com"}, {"b", "example.com"}} {
			must(t, s.Present(t.Context(), storage, challenge(t, order.id, "fileauth.txt", order.id, order.host)))
			time.Sleep(time.Millisecond) // of the bubble
			for _, host := range []string{"example.com", "www.example.com"} {
				files, err := readHost(t.Context(), storage, host, nil)
				must(t, err)
				wantFile(t, s, host, "fileauth.txt", string(pickFile(files, PathPrefix+"fileauth.txt").body))
			}
		}
	})
}

func TestManyValuesOfOneHost(t *testing.T) {
	storage := newMemoryStorage("shared")
	s := NewStore()
	const orders = 3 * maxStoredValues
	for i := range orders {
		id := fmt.Sprintf("2026-%04d", i)
		must(t, s.Present(t.Context(), storage, challenge(t, id, id+".txt", id, "example.com")))
	}
	storage.resetCount()
	files, err := readHost(t.Context(), storage, "example.com", nil)
	if err == nil || len(files) != maxStoredValues || storage.count("load") != maxStoredValues {
		t.Errorf("%d files by %d loads, %v", len(files), storage.count("load"), err)
	}
	if pickFile(files, fmt.Sprintf("%s2026-%04d.txt", PathPrefix, orders-1)) == nil {
		t.Error("the newest is not among them")
	}
}

// vanishing is a file storage in which a file disappears during each of the first listings.
type vanishing struct {
	*memoryStorage
	lists atomic.Int64
}

func (v *vanishing) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	if v.lists.Add(-1) >= 0 {
		return nil, &fs.PathError{Op: "lstat", Path: filepath.Join("/data", prefix, "12345"), Err: fs.ErrNotExist}
	}
	return v.memoryStorage.List(ctx, prefix, recursive)
}

func TestFileVanishesDuringList(t *testing.T) {
	storage := &vanishing{memoryStorage: newMemoryStorage("shared")}
	must(t, NewStore().Present(t.Context(), storage, challenge(t, "a", "a.txt", "one", "example.com")))
	storage.lists.Store(3)
	if files, err := readHost(t.Context(), storage, "example.com", nil); err != nil || len(files) != 1 {
		t.Errorf("got %v, %v", files, err)
	}
	storage.lists.Store(1000)
	if files, err := readHost(t.Context(), storage, "example.com", nil); err == nil || len(files) != 0 {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestFileStorage(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	read := func(host string, n int) {
		t.Helper()
		if files, err := readHost(t.Context(), storage, host, nil); err != nil || len(files) != n {
			t.Errorf("%s: got %v, %v", host, files, err)
		}
	}
	read("example.com", 0)
	s := NewStore()
	must(t, s.Present(t.Context(), storage, challenge(t, "a", "a.txt", "one\r\ntwo\n", "example.com", "2001:db8::1")))
	read("www.example.com", 1)
	read("2001:db8::1", 1)

	// Orders of others for the same host come and go.
	stop := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			id := fmt.Sprint(i % 10)
			err := errors.Join(
				NewStore().Present(t.Context(), storage, challenge(t, id, id+".txt", id, "example.com")),
				NewStore().CleanUp(t.Context(), storage, id, []string{"example.com"}))
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 200 {
		files, err := readHost(t.Context(), storage, "example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		if f := pickFile(files, PathPrefix+"a.txt"); f == nil || string(f.body) != "one\r\ntwo\n" {
			t.Fatalf("got %v", files)
		}
	}
	close(stop)
	other.Wait()

	must(t, s.CleanUp(t.Context(), storage, "a", nil))
	read("example.com", 0)
	err := filepath.WalkDir(storage.Path, func(name string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			t.Errorf("%s is left", name)
		}
		return err
	})
	must(t, err)
}
