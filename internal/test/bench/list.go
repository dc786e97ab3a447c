package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The numbers of entries that a list of very many is compared with. They are more than a
// listing reads at a time.
const (
	fewEntries      = 1_000
	quickFewEntries = 300
)

// listing is a process whose ledger is at rest, and whose orders are listed.
type listing struct {
	desk    *operator.Desk
	storage *keyStorage
	entries int
}

// keyStorage is a storage that reports when it has listed its keys.
type keyStorage struct {
	*certmagic.FileStorage
	listed func()
}

func (s *keyStorage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	list, err := s.FileStorage.List(ctx, path, recursive)
	if s.listed != nil {
		s.listed()
	}
	runtime.KeepAlive(list)
	return list, err
}

func newListing(ctx context.Context, storage, prefix string, entries int) (*listing, error) {
	s := &keyStorage{FileStorage: &certmagic.FileStorage{Path: storage}}
	account := operator.Account{
		Ledger:  &ledger.Ledger{Storage: s, Prefix: prefix, Memory: new(ledger.Memory)},
		Margin:  func(*ledger.Entry) time.Duration { return 30 * 24 * time.Hour },
		Manages: func(string) bool { return true },
		Order:   func(string) vendors.OrderConfig { return vendors.OrderConfig{Term: vendors.Term{Years: 1}} },
		Rules:   func(name string) operator.Rules { return operator.Rules{Allowed: true, Group: []string{name}} },
	}
	if err := account.Ledger.Refresh(ctx); err != nil {
		return nil, err
	}
	return &listing{operator.NewDesk([]operator.Account{account}), s, entries}, nil
}

// counter counts the bytes that are written to it.
type counter int

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// run writes what the command list --json writes. It calls each, unless that is nil, with the
// number of rows so far.
func (l *listing) run(ctx context.Context, each func(rows int)) error {
	written, rows := counter(0), 0
	w := operator.NewWriter(&written, operator.JSON)
	err := l.desk.List(ctx, operator.Query{}, func(r operator.Row) error {
		if r.Problem != "" || r.NextCharge.IsZero() {
			return fmt.Errorf("entry %s is listed as %+v", r.Entry, r)
		}
		if rows++; each != nil {
			each(rows)
		}
		return w.Row(r)
	})
	if err = errors.Join(err, w.End()); err != nil {
		return err
	}
	if rows != l.entries || int(written) < 100*rows {
		return fmt.Errorf("%d rows of %d entries, and %d bytes", rows, l.entries, written)
	}
	return nil
}

// perRow returns how long a row takes.
func (l *listing) perRow(ctx context.Context) (time.Duration, error) {
	runtime.GC() // of what came before
	started := time.Now()
	err := l.run(ctx, nil)
	return time.Since(started) / time.Duration(l.entries), err
}

// samples is how often the heap is measured during a list.
const samples = 20

// peak returns the most heap that a list holds at a time, above the ledger at rest, and
// what the keys alone take, which the storage lists all at once.
func (l *listing) peak(ctx context.Context) (most, keys float64, err error) {
	rest := memory().HeapAlloc
	held := func() float64 { return float64(memory().HeapAlloc) - float64(rest) }
	l.storage.listed = func() { keys = held() }
	defer func() { l.storage.listed = nil }()
	err = l.run(ctx, func(rows int) {
		if rows == 1 || rows%max(l.entries/samples, 1) == 0 {
			most = max(most, held())
		}
	})
	runtime.KeepAlive(l)
	return most, keys, err
}

// listRows compares a list of very many entries with one of few.
func listRows(ctx context.Context, o options, prefix, many, few string, fewer int) ([]row, error) {
	var sides [2]*listing
	var took [2][]float64
	var most, keys [2]float64
	for i, dir := range []string{many, few} {
		var err error
		if sides[i], err = newListing(ctx, dir, prefix, []int{o.entries, fewer}[i]); err != nil {
			return nil, err
		}
		if most[i], keys[i], err = sides[i].peak(ctx); err != nil {
			return nil, err
		}
	}
	for round := range pick(o, 5, 1) {
		for i := range sides {
			i = (i + round) % len(sides)
			each, err := sides[i].perRow(ctx)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], float64(each.Nanoseconds())/1000)
		}
	}
	kib := func(bytes float64) string { return number(bytes/1024) + " KiB" }
	ofFew := fmt.Sprintf(" (%d entries)", fewer)
	return []row{
		{
			claim: fmt.Sprintf("a row of list --json, with %d entries in a file storage, against %d", o.entries, fewer),
			ours:  fmt.Sprintf("%s µs, all in %s s", number(median(took[0])), number(median(took[0])*float64(o.entries)/1e6)),
			peer:  number(median(took[1])) + " µs" + ofFew, value: medianRatio(took[0], took[1]), unit: "×", want: bound{atMost, 1.5, 0.1},
		},
		{
			claim: "heap that it holds at its peak, above the ledger at rest and the keys that the storage lists at once",
			ours:  kib(most[0]-keys[0]) + ", the keys " + kib(keys[0]), peer: kib(most[1]-keys[1]) + ", the keys " + kib(keys[1]) + ofFew,
			value: (most[0] - keys[0]) / (most[1] - keys[1]), unit: "×", want: bound{atMost, 1.2, 0.1},
		},
	}, nil
}
