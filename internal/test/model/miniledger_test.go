package model

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

func (e *entry) speaks(name string) bool {
	if slices.Contains(e.Names, name) {
		return true
	}
	if e.Covered == nil {
		return slices.Contains(e.Maybe, name)
	}
	return slices.Contains(e.Covered, name)
}

// blocks goes by names and the end of the term; of the state it matters only whether the
// order is gone.
func (l *line) blocks(e *entry, name string, cfg Config) bool {
	if e.State == gone || !e.speaks(name) {
		return false
	}
	now := l.m.p.Now()
	if e.Covered == nil && !slices.Contains(e.Names, name) && (!e.Flag.IsZero() || now.Sub(e.Started) > day) {
		return false
	}
	margin := min(cfg.Margin, e.Term/2)
	if l.m.uncapped {
		margin = cfg.Margin
	}
	return e.Ends.Sub(now) > margin
}

func (l *line) load(ctx context.Context, id string) (*entry, error) {
	b, err := l.m.p.Storage.Load(ctx, l.dir+"/"+id)
	if errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		delete(l.known, id)
		l.mu.Unlock()
		return nil, nil //nolint:nilnil // absence is not an error here
	}
	if err != nil {
		return nil, err
	}
	e := new(entry)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.known[id] = e
	l.mu.Unlock()
	return e, nil
}

func (l *line) store(ctx context.Context, e *entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return l.m.p.Storage.Store(ctx, l.dir+"/"+e.ID, b)
}

// all returns copies of the entries that are known.
func (l *line) all() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*entry, 0, len(l.known))
	for _, e := range l.known {
		c := *e
		out = append(out, &c)
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// refresh lists the folder and loads what is not known or not yet issued.
func (l *line) refresh(ctx context.Context) ([]string, error) {
	keys, err := l.m.p.Storage.List(ctx, l.dir, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = path.Base(k)
	}
	for _, e := range l.all() {
		if !slices.Contains(ids, e.ID) {
			l.mu.Lock()
			delete(l.known, e.ID)
			l.mu.Unlock()
		}
	}
	for _, id := range ids {
		l.mu.Lock()
		e := l.known[id]
		l.mu.Unlock()
		if e == nil || e.Covered == nil && e.State != gone {
			if _, err := l.load(ctx, id); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

// fresh reloads what speaks for any of the names.
func (l *line) fresh(ctx context.Context, names ...string) ([]*entry, error) {
	var out []*entry
	for _, e := range l.all() {
		if e.State == gone || !slices.ContainsFunc(names, e.speaks) {
			continue
		}
		now, err := l.load(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		if now != nil && now.State != gone {
			out = append(out, now)
		}
	}
	return out, nil
}

// answer writes what the vendor said, which overrides any guess.
func (l *line) answer(ctx context.Context, e *entry, change func(*entry)) {
	for ctx.Err() == nil {
		now, err := l.load(ctx, e.ID)
		if err == nil {
			if now == nil || now.Rev == e.Rev {
				now = e
			}
			next := *now
			change(&next)
			next.Rev++
			if err = l.store(ctx, &next); err == nil {
				*e = next
				return
			}
		}
		wait(ctx, 2*time.Second)
	}
}

// change compares, then writes.
func (l *line) change(ctx context.Context, e *entry, do func(*entry)) bool {
	if !l.m.noCompare {
		now, err := l.load(ctx, e.ID)
		if err != nil || now == nil || now.Rev != e.Rev {
			return false
		}
	}
	next := *e
	do(&next)
	next.Rev++
	if l.store(ctx, &next) != nil {
		return false
	}
	*e = next
	return true
}

func (l *line) flag(ctx context.Context, e *entry) {
	if e.Flag.IsZero() {
		l.change(ctx, e, func(e *entry) { e.Flag = l.m.p.Now() })
	}
}
