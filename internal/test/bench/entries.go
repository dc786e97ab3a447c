package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// benchEntries starts a Caddy whose account has already bought a great many certificates,
// for other names and on other servers, and one whose account has not. It reports how
// much later a new name gets its certificate, because all entries are read before
// anything is bought, and how much memory they take, at rest and while they are listed.
// The files are in the system's cache, as on a server that was just restarted.
func benchEntries(ctx context.Context, o options) ([]row, error) {
	m := &many{options: o}
	if err := m.build(ctx, &m.caddy, &m.sandbox); err != nil {
		return nil, err
	}
	with, err := m.newHoster(ctx, "with", ours, 1, 0)
	if err != nil {
		return nil, err
	}
	defer with.close()
	without, err := m.newHoster(ctx, "without", ours, 1, 0)
	if err != nil {
		return nil, err
	}
	defer without.close()
	sides := []*hoster{with, without}
	for _, w := range sides {
		if _, err := w.issueAll(ctx); err != nil {
			return nil, err
		}
	}
	prefix, template, err := with.entry()
	if err != nil {
		return nil, err
	}
	if err := seedLedger(with.storage(), prefix, template, o.entries, true); err != nil {
		return nil, err
	}

	rounds := pick(o, 5, 1)
	took, cpu, rss, peak := make([][]float64, 2), make([][]float64, 2), make([][]float64, 2), make([][]float64, 2)
	for round := range rounds {
		for i := range sides {
			i = (i + round) % len(sides)
			sides[i].names = []string{fmt.Sprintf("new%d.example.com", round)}
			wall, used, err := sides[i].first(ctx)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], wall.Seconds())
			cpu[i] = append(cpu[i], used.cpu.Seconds())
			rss[i] = append(rss[i], float64(used.rss))
			peak[i] = append(peak[i], float64(used.peak))
		}
	}
	for _, w := range sides {
		charges, err := w.countCharges(ctx)
		if err != nil {
			return nil, err
		}
		if charges != rounds+1 {
			return nil, fmt.Errorf("%d names were charged %d times", rounds+1, charges)
		}
	}
	twins, err := heapOfEntry(ctx, with.storage(), prefix, o.entries+rounds+1)
	if err != nil {
		return nil, err
	}
	single := filepath.Join(o.dir, "single")
	if err := seedLedger(single, prefix, template, o.entries, false); err != nil {
		return nil, err
	}
	heap, err := heapOfEntry(ctx, single, prefix, o.entries)
	if err != nil {
		return nil, err
	}
	fewer, few := pick(o, fewEntries, quickFewEntries), filepath.Join(o.dir, "few")
	if err := seedLedger(few, prefix, template, fewer, false); err != nil {
		return nil, err
	}
	lists, err := listRows(ctx, o, prefix, single, few, fewer)
	if err != nil {
		return nil, err
	}
	later := make([]float64, rounds)
	for i := range later {
		later[i] = took[0][i] - took[1][i]
	}
	each := func(memory [][]float64) float64 { return (median(memory[0]) - median(memory[1])) / float64(o.entries) }
	return append([]row{
		{
			claim: fmt.Sprintf("from the start of Caddy until a new name has its certificate, with %d live entries in the ledger, against none", o.entries),
			ours:  number(median(took[0])) + " s", peer: number(median(took[1])) + " s (no entries)",
			value: median(later), unit: " s", want: bound{atMost, 5, 0.1},
		},
		{
			claim: "processor time of Caddy until all is at rest again",
			ours:  number(median(cpu[0])) + " s", peer: number(median(cpu[1])) + " s (no entries)",
			value: median(cpu[0]) - median(cpu[1]), unit: " s",
		},
		{
			claim: "memory for an entry that the process occupies (RSS) at rest after that, garbage included, over that with none",
			ours:  fmt.Sprintf("%s B, at its peak %s B", number(each(rss)), number(each(peak))), peer: "-", value: each(rss), unit: " B",
		},
		{
			claim: "heap held for an entry of one name",
			ours:  number(heap) + " B", peer: "-", value: heap, unit: " B", want: bound{atMost, 300, 0.05},
		},
		{
			claim: "heap held for an entry of a name and its www twin, as those above are",
			ours:  number(twins) + " B", peer: "-", value: twins, unit: " B",
		},
	}, lists...), nil
}

// entry returns where the ledger is in the storage, and the only entry in it.
func (w *hoster) entry() (prefix string, e *ledger.Entry, err error) {
	found, err := filepath.Glob(filepath.Join(w.storage(), "commercial", "racent", "*", "entries", "*.json"))
	if err != nil {
		return "", nil, err
	}
	if len(found) != 1 {
		return "", nil, fmt.Errorf("%d entries of one order", len(found))
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		return "", nil, err
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return "", nil, err
	}
	prefix, err = filepath.Rel(w.storage(), filepath.Dir(filepath.Dir(found[0])))
	return filepath.ToSlash(prefix), e, err
}

// first starts Caddy for one new name, and returns how long it takes until the name has
// its certificate, and what the process uses at rest after that.
func (w *hoster) first(ctx context.Context) (took time.Duration, u used, err error) {
	folder, err := w.certificates()
	if err != nil {
		return 0, u, err
	}
	started := time.Now()
	caddy, err := w.startCaddy(ctx)
	if err != nil {
		return 0, u, err
	}
	defer func() { err = errors.Join(err, caddy.stop()) }()
	for {
		if written, ok := certificateOf(folder, w.names[0]); ok {
			took = written.Sub(started)
			break
		}
		if time.Since(started) > manyStall {
			return 0, u, fmt.Errorf("%s has no certificate after %s\n%s", w.names[0], manyStall, caddy.tail())
		}
		if err := caddy.sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, u, err
		}
	}
	if err := caddy.settle(ctx, pick(w.options, restLength, restLength/4)); err != nil {
		return 0, u, err
	}
	u, err = caddy.usage()
	return took, u, err
}

// The entries were paid for between these ages, evenly spread. None of their orders has
// ended, and none of their certificates is due.
const (
	oldestEntry = 90 * 24 * time.Hour
	newestEntry = 10 * 24 * time.Hour
)

// seedLedger writes n entries like the template, each for a name of its own or also for
// the twin that CAs add to certificates. Unlike the storage, it does not wait for the
// disk.
func seedLedger(storage, prefix string, template *ledger.Entry, n int, twins bool) error {
	folder := filepath.Join(storage, filepath.FromSlash(prefix), "entries")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	first, span := time.Now().UTC().Add(-oldestEntry), oldestEntry-newestEntry
	for i := range n {
		e := olderEntry(template, i, first.Add(span*time.Duration(i)/time.Duration(n)), twins)
		text, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, e.ID+".json"), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// olderEntry is the nth entry like the template, paid for at that time.
func olderEntry(template *ledger.Entry, n int, paid time.Time, twin bool) ledger.Entry {
	e, cert := *template, *template.Certificate
	moved := paid.Sub(template.Paid)
	name := fmt.Sprintf("shop-%06d.example.org", n)
	e.ID = fmt.Sprintf("%s-%016x", paid.Format("20060102t150405"), n)
	e.Names, e.Covered = []string{name}, []string{name}
	if twin {
		e.Covered = append(e.Covered, "www."+name)
	}
	e.OrderID, e.RootID, e.CAOrderID = fmt.Sprintf("sold%012d", n), fmt.Sprintf("sold%012d", n), fmt.Sprint(3_000_000_000+n)
	e.Paid, e.Updated, e.Ends = paid, e.Updated.Add(moved), e.Ends.Add(moved)
	e.Attempt.Reference, e.Attempt.Unique = fmt.Sprintf("cc%024x", n), fmt.Sprintf("%020x", n)
	e.Attempt.Started = e.Attempt.Started.Add(moved)
	cert.Serial, cert.Key, cert.Reference = fmt.Sprintf("%032x", n), fmt.Sprintf("%064x", n), e.Attempt.Reference
	cert.NotBefore, cert.NotAfter = cert.NotBefore.Add(moved), cert.NotAfter.Add(moved)
	e.Certificate = &cert
	return e
}

// heapOfEntry reads a ledger, as the issuer does, and returns how much of the heap is
// held for each entry.
func heapOfEntry(ctx context.Context, storage, prefix string, want int) (float64, error) {
	l := &ledger.Ledger{Storage: &certmagic.FileStorage{Path: storage}, Prefix: prefix, Memory: new(ledger.Memory)}
	before := memory().HeapAlloc
	if err := l.Refresh(ctx); err != nil {
		return 0, err
	}
	held := memory().HeapAlloc
	all := l.Memory.All()
	if len(all) != want {
		return 0, fmt.Errorf("the ledger has %d entries, want %d", len(all), want)
	}
	for _, b := range all {
		if b.State() != ledger.Issued {
			return 0, fmt.Errorf("entry %s is %s", b.ID, b.State())
		}
	}
	return (float64(held) - float64(before)) / float64(len(all)), nil
}
