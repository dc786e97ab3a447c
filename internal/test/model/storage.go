package model

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// StoreTimeout is how long a caller waits for a write before it gives up.
const StoreTimeout = 30 * time.Second

var (
	errStorage = errors.New("the storage does not answer")
	errTimeout = errors.New("the storage did not answer in time; the write may land later")
)

// version is one value of a key, and since when each server sees it. No times: all do.
type version struct {
	value    []byte // nil: deleted
	modified time.Time
	since    []time.Duration
}

// visible is what a server sees at the key, nil if nothing.
func (w *World) visible(key string, server int) *version {
	versions := w.stored[key]
	for i, v := range slices.Backward(versions) {
		if v.since == nil || v.since[server] <= w.now() {
			if v.value == nil {
				return nil
			}
			return &versions[i]
		}
	}
	return nil
}

// put writes a value, or deletes it with nil. Other servers see that later.
func (w *World) put(key string, value []byte, server int) {
	v := version{value: value, modified: w.start.Add(w.now())}
	if w.p.Visible == 0 || w.quiet {
		if value == nil {
			delete(w.stored, key)
			return
		}
		w.stored[key] = []version{v}
		return
	}
	now := w.now()
	v.since = make([]time.Duration, len(w.servers))
	for i := range v.since {
		v.since[i] = now
		if i != server {
			v.since[i] += one(w, 0, w.p.Visible/3, w.p.Visible)
		}
	}
	old := w.stored[key]
	for i, o := range slices.Backward(old) { // what everybody sees hides what was before
		if o.since == nil || slices.Max(o.since) <= now {
			old = old[i:]
			break
		}
	}
	w.stored[key] = append(slices.Clip(old), v)
}

// storage is the shared storage as one process sees it.
type storage struct {
	w *World
	p *Process
}

func (s *storage) write(ctx context.Context, kind, key string, value []byte) error {
	w := s.w
	return w.do(ctx, s.p, kind, key, func(o *op) {
		before := w.delay()
		if before > StoreTimeout && s.p.dieAfter != o {
			// The caller gives up; the write lands later all the same, or never.
			if w.tape.Pick(2) == 1 && w.p.LateStore > 0 {
				w.after(min(before, w.p.LateStore), func() {
					w.say("late %s %s", kind, key)
					w.put(key, value, s.p.Server)
				})
			}
			w.after(StoreTimeout, func() { w.finish(o, errTimeout) })
			return
		}
		w.effect(o, before, func() (time.Duration, error) {
			if kind == "store" && w.oneIn(300) {
				return w.delay(), errStorage
			}
			w.put(key, value, s.p.Server)
			return w.delay(), nil
		})
	})
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	return s.write(ctx, "store", clean(key), append([]byte{}, value...))
}

func (s *storage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, "delete", clean(key), nil)
}

// read reads the storage once.
func (s *storage) read(ctx context.Context, kind, key string, look func() error) error {
	w := s.w
	return w.do(ctx, s.p, kind, key, func(o *op) {
		w.effect(o, w.delay(), func() (time.Duration, error) {
			if w.oneIn(300) {
				return w.delay(), errStorage
			}
			err := look()
			return w.delay(), err
		})
	})
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	var got []byte
	key = clean(key)
	err := s.read(ctx, "load", key, func() error {
		v := s.w.visible(key, s.p.Server)
		if v == nil {
			return fs.ErrNotExist
		}
		got = append([]byte{}, v.value...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// Exists reports false if it cannot tell, as certmagic's interface demands.
func (s *storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	var info certmagic.KeyInfo
	key = clean(key)
	err := s.read(ctx, "stat", key, func() error {
		if v := s.w.visible(key, s.p.Server); v != nil {
			info = certmagic.KeyInfo{Key: key, Modified: v.modified, Size: int64(len(v.value)), IsTerminal: true}
			return nil
		}
		if len(s.w.list(key, false, s.p.Server)) > 0 {
			info = certmagic.KeyInfo{Key: key}
			return nil
		}
		return fs.ErrNotExist
	})
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return info, nil
}

// List returns an error for a folder that does not exist, or none, as storages differ.
func (s *storage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	var keys []string
	prefix = clean(prefix)
	err := s.read(ctx, "list", prefix+"/", func() error {
		keys = s.w.list(prefix, recursive, s.p.Server)
		if len(keys) == 0 && s.w.traits.missingFolder {
			return fs.ErrNotExist
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

func (w *World) list(prefix string, recursive bool, server int) []string {
	var keys []string
	for key := range w.stored {
		rest, ok := strings.CutPrefix(key, prefix+"/")
		if prefix == "" {
			rest, ok = key, true
		}
		if !ok || w.visible(key, server) == nil {
			continue
		}
		folder, _, deeper := strings.Cut(rest, "/")
		if deeper && !recursive {
			key = strings.TrimSuffix(key, rest) + folder
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func clean(key string) string { return strings.Trim(key, "/") }
