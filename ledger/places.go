package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"
)

// Place is where an entry is in a storage, and whose it is.
type Place struct {
	Vendor, Account, ID string

	// Past is whether the entry is over and out of the way.
	Past bool

	key string
}

// Key is the key in the storage.
func (p Place) Key() string { return p.key }

// placeOf tells what the key of an entry says.
func placeOf(key string) (Place, bool) {
	// commercial/<vendor>/<account>/entries/<id>.json
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[3] != entries && parts[3] != past {
		return Place{}, false
	}
	id, ok := strings.CutSuffix(parts[4], ".json")
	return Place{unescape(parts[1]), unescape(parts[2]), id, parts[3] == past, key}, ok
}

// Places are those of the wanted entries of all accounts on a storage, in the order of their keys,
// which is that of vendor, account and time. There may be very many, so only the keys are held, and
// no entry is read.
type Places struct{ keys []string }

// ListPlaces lists the places that are wanted. Nil wants all.
func ListPlaces(ctx context.Context, storage certmagic.Storage, wanted func(Place) bool) (Places, error) {
	files, err := storage.List(ctx, root, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Places{}, fmt.Errorf("listing the ledgers: %w", err)
	}
	files = slices.DeleteFunc(files, func(key string) bool {
		p, ok := placeOf(key)
		return !ok || wanted != nil && !wanted(p)
	})
	slices.Sort(files)
	return Places{files}, nil
}

// Find returns the first place with the ID.
func (p Places) Find(id string) (Places, bool) {
	i := slices.IndexFunc(p.keys, func(key string) bool { return path.Base(key) == id+".json" })
	if i < 0 || id == "" {
		return Places{}, false
	}
	return Places{p.keys[i : i+1]}, true
}

// Pages yields the places, so many at a time.
func (p Places) Pages(size int) iter.Seq[[]Place] {
	return func(yield func([]Place) bool) {
		for keys := range slices.Chunk(p.keys, size) {
			page := make([]Place, len(keys))
			for i, key := range keys {
				page[i], _ = placeOf(key)
			}
			if !yield(page) {
				return
			}
		}
	}
}

// Read reads the entry, as it is in the storage.
func (p Place) Read(ctx context.Context, storage certmagic.Storage) (*Entry, error) {
	return (&Ledger{Storage: storage}).read(ctx, p.key)
}

// unescape undoes Escape.
func unescape(key string) string {
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		if key[i] == '_' && i+2 < len(key) {
			if c, err := strconv.ParseUint(key[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(key[i])
	}
	return b.String()
}
