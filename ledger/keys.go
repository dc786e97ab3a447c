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

// listTries is how often a listing is tried that broke off. While hundreds of entries are
// written per second, that may be each second one.
const listTries = 30

// listKeys lists a folder, all of it or with an error. A folder that does not exist is empty.
// A file storage says the same of it and of a file that went away while it was looking, as the
// temporary file of each write does: then the list ends there, and that is no empty ledger.
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
