package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// What keeps two servers from ordering the same is that a storage shows one of them what the
// other has written, in good time (see [Ledger.Refresh]). Whether a storage does so is tried:
// what is written through one handle is looked for through another.

const (
	trials = "trials" // a folder beside the ledgers

	// trialPatience bounds how long a trial looks for one change.
	trialPatience = 2 * time.Minute

	// lockPatience is for how long a lock that is held must be refused.
	lockPatience = 2 * time.Second
)

// Lateness tells how late a storage shows through one handle what was written or deleted
// through the other: the longest time from the end of a change to the start of a look that did
// not show it yet. Zero means that every look did. It calls late, if that is not nil, whenever
// it knows more. An error means that the storage could not be tried to the end.
func Lateness(ctx context.Context, one, other certmagic.Storage, late func(time.Duration)) (time.Duration, error) {
	most := time.Duration(0)
	note := func(d time.Duration) {
		most = max(most, d)
		if late != nil {
			late(most)
		}
	}
	key := trialKey()
	content := []byte(key)
	if err := one.Store(ctx, key, content); err != nil {
		return most, fmt.Errorf("writing %s: %w", key, err)
	}
	defer func() {
		ctx, cancel := storageContext(ctx)
		defer cancel()
		_ = one.Delete(ctx, key) // it may be gone already
	}()
	if err := untilShown(ctx, other, key, content, note); err != nil {
		return most, err
	}
	if err := one.Delete(ctx, key); err != nil {
		return most, fmt.Errorf("removing %s: %w", key, err)
	}
	return most, untilShown(ctx, other, key, nil, note)
}

// trialKey returns a key that nobody else has.
func trialKey() string {
	id := make([]byte, 8)
	new(Ledger).Fill(id)
	return path.Join(root, trials, hex.EncodeToString(id))
}

// untilShown looks until a storage shows the content at the key, or nothing if that is nil.
func untilShown(ctx context.Context, storage certmagic.Storage, key string, content []byte, late func(time.Duration)) error {
	written := time.Now()
	pause := poll.Schedule{Min: 20 * time.Millisecond, Max: 10 * time.Second}
	for {
		begun := time.Since(written)
		shown, err := shows(ctx, storage, key, content)
		switch {
		case err != nil:
			return err
		case shown:
			return nil
		}
		// Had it been there when the look began, it would have been shown.
		late(begun)
		if begun > trialPatience {
			return fmt.Errorf("%s was changed %s ago, and another handle of the storage does not show it", key, begun.Round(time.Second))
		}
		if err := poll.Wait(ctx, pause.Next(rand.Float64)); err != nil {
			return err
		}
	}
}

func shows(ctx context.Context, storage certmagic.Storage, key string, content []byte) (bool, error) {
	keys, err := listKeys(ctx, storage, path.Dir(key))
	if err != nil {
		return false, fmt.Errorf("listing %s: %w", path.Dir(key), err)
	}
	listed := slices.ContainsFunc(keys, func(k string) bool { return path.Base(k) == path.Base(key) })
	got, err := storage.Load(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	if content == nil {
		return !listed && err != nil, nil
	}
	return listed && err == nil && bytes.Equal(got, content), nil
}

// Excludes reports whether a lock that is held through one handle of a storage is refused to
// the other.
func Excludes(ctx context.Context, one, other certmagic.Storage) (bool, error) {
	name := trialKey()
	if err := one.Lock(ctx, name); err != nil {
		return false, fmt.Errorf("locking %s: %w", name, err)
	}
	defer unlock(ctx, one, name)
	short, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	err := other.Lock(short, name)
	if err == nil {
		unlock(ctx, other, name)
		return false, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return true, nil
}

func unlock(ctx context.Context, storage certmagic.Storage, name string) {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	_ = storage.Unlock(ctx, name) // a lock that excludes nobody may be gone
}
