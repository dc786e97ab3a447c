package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/caddyserver/certmagic"
)

// listTries is how often a listing that breaks off is tried. While hundreds of entries are
// written per second, every other one may.
const listTries = 30

// listKeys lists a folder, all of it or with an error. A folder that does not exist is empty.
// A file storage returns the same error for it and for a file that went away during the
// listing, as the temporary file of each write does. Then the list is not complete, and must
// not be taken for that of an empty ledger.
func listKeys(ctx context.Context, storage certmagic.Storage, folder string) ([]string, error) {
	var err error
	for range listTries {
		var keys []string
		keys, err = storage.List(ctx, folder, false)
		if err == nil {
			return keys, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		gone, ok := errors.AsType[*fs.PathError](err)
		if !ok || filepath.Base(gone.Path) == path.Base(folder) {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("files come and go faster than they can be listed: %v", err) //nolint:errorlint // not to be taken for a folder that does not exist
}
