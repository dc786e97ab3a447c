package dcv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// In storage a host is a folder, and what one ID presents for it is one value in
// there: commercial/dcv/<host>/<id>.json. So nobody ever changes what another has
// written, and no lock is needed: presenting is one Store, cleaning up one Delete.
// Nothing is written for the twin of a host; an instance that is asked for it looks
// into both folders. Folders are never deleted, because a storage would take the
// files of others along.
const storagePrefix = "commercial/dcv"

const (
	// maxStoredValue bounds what is decoded. A storage may be shared with others.
	maxStoredValue = 256 << 10

	// maxStoredValues bounds what is loaded for one host and name at a time.
	maxStoredValues = 64

	// maxKeyPart bounds a component of a key, in bytes. File systems allow 255.
	maxKeyPart = 200

	// removeAfter is how long after its end a value is removed by whoever lists
	// it. The clocks of servers may differ.
	removeAfter = 2 * time.Hour
)

// storedFiles is one value in storage.
type storedFiles struct {
	ID        string       `json:"id"`
	Group     string       `json:"group,omitempty"`
	Host      string       `json:"host"`
	Presented time.Time    `json:"presented"`
	Files     []storedFile `json:"files"` // in the order in which they are tried
}

type storedFile struct {
	Path    string    `json:"path"`
	Body    string    `json:"body"`
	Expires time.Time `json:"expires,omitzero"`
}

// hostFolder returns the key of a host's folder.
func hostFolder(host string) string { return path.Join(storagePrefix, keyPart(host)) }

// valueKey returns the key of what an ID presents for a host.
func valueKey(host, id string) string { return path.Join(hostFolder(host), keyPart(id)+".json") }

// keyPart encodes text as one component of a key. Different texts have different
// encodings, also for storages that do not tell capitals from small letters, and
// certmagic.StorageKeys.Safe changes nothing of it. Bytes that are no small
// letter, digit, hyphen or single dot become an underscore and two hexadecimal
// digits. What gets too long ends in a hash of the whole.
func keyPart(text string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' ||
			c == '.' && i > 0 && text[i-1] != '.' && i < len(text)-1
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	part := b.String()
	switch {
	case part == "":
		return "_"
	case len(part) > maxKeyPart:
		return fmt.Sprintf("%s_x%x", strings.TrimRight(part[:maxKeyPart/2], "."), sha256.Sum256([]byte(text)))
	}
	return part
}

// encodeFiles returns the value that holds the files of an ID for one host.
func encodeFiles(id, host string, files []*file) ([]byte, error) {
	value := storedFiles{ID: id, Host: host, Presented: time.Now().UTC()}
	for _, f := range files {
		value.Group = f.group
		value.Files = append(value.Files, storedFile{Path: f.path, Body: string(f.body), Expires: f.expires})
	}
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false) // it would make some files six times as long
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encoding validation files for %s: %w", host, err)
	}
	if data.Len() > maxStoredValue {
		return nil, fmt.Errorf("validation files for %s take %d bytes in storage, at most %d are allowed", host, data.Len(), maxStoredValue)
	}
	return data.Bytes(), nil
}

// errForeign is what is wrong with a value that this package has not written.
var errForeign = errors.New("not a stored set of validation files")

// decodeFiles returns the files in a value, which must be under the key of the ID
// and host that it names. Invalid files are left out, with an error that wraps
// errForeign.
func decodeFiles(key, host string, data []byte) (files []*file, err error) {
	if len(data) > maxStoredValue {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", errForeign, len(data), maxStoredValue)
	}
	var value storedFiles
	if err := json.Unmarshal(data, &value); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	if value.Host != host || valueKey(host, value.ID) != key {
		return nil, fmt.Errorf("%w: it belongs under another key", errForeign)
	}
	if value.Presented.IsZero() {
		return nil, fmt.Errorf("%w: it does not say since when", errForeign)
	}
	for _, stored := range value.Files {
		ch := Challenge{ID: value.ID, Group: value.Group, Hosts: []string{host}, Path: stored.Path, Body: []byte(stored.Body), Expires: stored.Expires}
		if bad := ch.check(); bad != nil {
			err = fmt.Errorf("%w: %w", errForeign, bad)
			continue
		}
		f := newFile(ch, host)
		f.presented = value.Presented
		files = append(files, f)
	}
	return files, err
}

// readHost returns the files that are served on a host, as the storage has them,
// in the order in which they are tried. Where the storage fails, the files that
// are known from before stand in; the error tells of that, and of values that are
// not ours, which hide nothing else.
func readHost(ctx context.Context, storage certmagic.Storage, host string, known []*file) ([]*file, error) {
	names := servedOn(host)
	// www.www.example.com is no twin of www.example.com.
	names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(servedOn(name), host) })
	found := make([][]*file, len(names))
	err := forEach(names, func(i int, name string) (err error) {
		found[i], err = readFolder(ctx, storage, name, known)
		return err
	})
	return slices.Concat(found...), err
}

func readFolder(ctx context.Context, storage certmagic.Storage, name string, known []*file) ([]*file, error) {
	folder := hostFolder(name)
	keys, err := listFolder(ctx, storage, folder)
	if err != nil {
		return knownFiles(known, name, func(string) bool { return true }), fmt.Errorf("listing %s: %w", folder, err)
	}
	var tooMany error
	if len(keys) > maxStoredValues {
		tooMany = fmt.Errorf("%s has %d values, only %d of them are looked at", folder, len(keys), maxStoredValues)
		// IDs begin with a time more often than not, so the newest come last. The
		// oldest is looked at because it may be one to remove.
		slices.Sort(keys)
		keys = append(keys[:1], keys[len(keys)-maxStoredValues+1:]...)
	}
	found := make([][]*file, len(keys))
	err = forEach(keys, func(i int, key string) error {
		data, err := storage.Load(ctx, key)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has just gone, or cannot be seen yet
			return nil
		case err != nil:
			found[i] = knownFiles(known, name, func(id string) bool { return valueKey(name, id) == key })
		default:
			found[i], err = decodeFiles(key, name, data)
		}
		if err == nil && overSince(found[i], removeAfter) {
			if err = storage.Delete(ctx, key); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", key, err)
		}
		return nil
	})
	files := slices.Concat(found...)
	slices.SortStableFunc(files, func(a, b *file) int { return b.presented.Compare(a.presented) })
	return slices.DeleteFunc(files, func(f *file) bool { return !f.live() }), errors.Join(tooMany, err)
}

// knownFiles returns those that name the host and whose ID is wanted.
func knownFiles(known []*file, name string, wanted func(id string) bool) []*file {
	var files []*file
	for _, f := range known {
		if f.name == name && wanted(f.id) {
			files = append(files, f)
		}
	}
	return files
}

// overSince reports whether there are files and all of them ended that long ago.
func overSince(files []*file, age time.Duration) bool {
	return len(files) > 0 && !slices.ContainsFunc(files, func(f *file) bool {
		return f.expires.IsZero() || time.Since(f.expires) < age
	})
}

// listFolder returns the keys of the values that stand directly in a folder. One
// that does not exist has none.
func listFolder(ctx context.Context, storage certmagic.Storage, folder string) ([]string, error) {
	children, err := listChildren(ctx, storage, folder)
	children = slices.DeleteFunc(children, func(child string) bool { return path.Ext(child) != ".json" })
	for i, child := range children {
		children[i] = path.Join(folder, child)
	}
	return children, err
}

// listChildren returns the last components of the keys directly in a folder,
// which are values and folders.
func listChildren(ctx context.Context, storage certmagic.Storage, folder string) ([]string, error) {
	const tries = 4
	var keys []string
	var err error
	for range tries {
		keys, err = storage.List(ctx, folder, false)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// A file storage says the same of a folder that does not exist and of a file
		// that went away while it was looking, as each written file's temporary one
		// does. Then the list is not complete.
		gone, ok := errors.AsType[*fs.PathError](err)
		if !ok || filepath.Base(gone.Path) == path.Base(folder) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	children := make([]string, len(keys))
	for i, key := range keys {
		children[i] = path.Base(key)
	}
	return children, nil
}
