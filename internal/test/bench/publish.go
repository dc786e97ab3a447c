package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// publishOthers is how many other files there are on the costly side.
const publishOthers = 10_000

// benchPublish publishes a validation file and withdraws it, as each order does, while
// one other file is live and while ten thousand are: in the memory of the process, and
// with the storage, where the other files are as well.
func benchPublish(ctx context.Context, o options) ([]row, error) {
	others := pick(o, publishOthers, publishOthers/10)
	few, err := newPublisher(ctx, filepath.Join(o.dir, "few"), 1)
	if err != nil {
		return nil, err
	}
	many, err := newPublisher(ctx, filepath.Join(o.dir, "many"), others)
	if err != nil {
		return nil, err
	}
	bare := func(p *publisher) func() error { return func() error { return p.publish(ctx, nil) } }
	memory, err := interleave(pick(o, 81, 5), bare(many), bare(few))
	if err != nil {
		return nil, err
	}
	stored := func(p *publisher) func() error { return func() error { return p.publish(ctx, p.storage) } }
	disk, err := interleave(pick(o, 81, 5), stored(many), stored(few))
	if err != nil {
		return nil, err
	}
	timed := func(claim string, got []cost, margin float64) row {
		return row{
			claim: claim, ours: number(got[0].ns/1e3) + " µs", peer: number(got[1].ns/1e3) + " µs (1 other)",
			value: got[0].ns / got[1].ns, unit: "×", want: bound{atMost, 1.2, margin},
		}
	}
	return []row{
		timed(fmt.Sprintf("publishing and withdrawing a validation file, in memory, with %d others live, against 1", others), memory, 0.1),
		{
			claim: "allocations for it",
			ours:  number(memory[0].allocs), peer: number(memory[1].allocs) + " (1 other)",
			value: memory[0].allocs / memory[1].allocs, unit: "×", want: bound{kind: atMost, limit: 1},
		},
		timed("the same with a file storage, which waits for the disk", disk, 0.2),
	}, nil
}

// publisher is a process with other files, besides the one that it publishes.
type publisher struct {
	store   *dcv.Store
	storage *certmagic.FileStorage
	file    dcv.Challenge
}

func newPublisher(ctx context.Context, dir string, others int) (*publisher, error) {
	p := &publisher{store: dcv.NewStore(), storage: &certmagic.FileStorage{Path: dir}}
	var err error
	if p.file, err = dcv.NewChallenge("bench-publish", []string{siteHost}, fileName, fileBody); err != nil {
		return nil, err
	}
	for i := range others {
		other, err := dcv.NewChallenge(fmt.Sprintf("other%d", i), []string{fmt.Sprintf("shop%d.example.net", i)}, fileName, fileBody)
		if err != nil {
			return nil, err
		}
		if err := p.store.Present(ctx, nil, other); err != nil {
			return nil, err
		}
	}
	return p, p.fill(ctx, others)
}

// fill adds the other hosts to the storage, each with a copy of the file, without waiting
// for the disk. Nobody reads them here; what counts is that they are there.
func (p *publisher) fill(ctx context.Context, others int) error {
	if err := p.store.Present(ctx, p.storage, p.file); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(p.storage.Path, "commercial", "dcv", siteHost, "*"))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d files where one was stored", len(found))
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	for i := range others {
		folder := filepath.Join(p.storage.Path, "commercial", "dcv", fmt.Sprintf("shop%d.example.net", i))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(found[0])), data, 0o600); err != nil {
			return err
		}
	}
	return p.store.CleanUp(ctx, p.storage, p.file.ID, p.file.Hosts)
}

func (p *publisher) publish(ctx context.Context, storage certmagic.Storage) error {
	if err := p.store.Present(ctx, storage, p.file); err != nil {
		return err
	}
	return p.store.CleanUp(ctx, storage, p.file.ID, p.file.Hosts)
}
