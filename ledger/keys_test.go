package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/caddyserver/certmagic"
)

// torn is a file storage in which some listings meet a file that has just been removed.
type torn struct {
	*certmagic.FileStorage
	times int
}

func (s *torn) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	keys, err := s.FileStorage.List(ctx, prefix, recursive)
	if s.times--; s.times >= 0 && err == nil {
		gone := &fs.PathError{Op: "lstat", Path: filepath.Join(s.Filename(prefix), "x.json.tmp"), Err: os.ErrNotExist}
		return keys[:len(keys)/2], gone
	}
	return keys, err
}

// TestListingThatBreaksOff: a listing that fails is not an empty ledger: it is repeated, or nothing
// is known.
func TestListingThatBreaksOff(t *testing.T) {
	files := &certmagic.FileStorage{Path: t.TempDir()}
	for _, tc := range []struct {
		times int
		ok    bool
	}{{0, true}, {1, true}, {listTries - 1, true}, {listTries, false}} {
		storage := &torn{files, tc.times}
		keys, err := listKeys(t.Context(), storage, "folder")
		if err != nil || len(keys) != 0 {
			t.Fatalf("a folder that does not exist: %v, %v", keys, err)
		}
		for i := range 4 {
			if err := files.Store(t.Context(), path.Join("there", fmt.Sprint(i)), nil); err != nil {
				t.Fatal(err)
			}
		}
		storage.times = tc.times
		keys, err = listKeys(t.Context(), storage, "there")
		if (err == nil) != tc.ok || tc.ok && len(keys) != 4 || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d failed listings: %v, %v", tc.times, keys, err)
		}
	}
}
