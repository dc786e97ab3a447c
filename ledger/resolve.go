package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// Resolution is what a person found out about an order. One of OrderID and None is set.
type Resolution struct {
	// Vendor and Entry narrow down which order is meant, if there are several for the
	// name. Both may be empty.
	Vendor, Entry string

	// OrderID is the vendor's ID of the order that is there after all, or of another one
	// to use from now on.
	OrderID string

	// None means that there is no such order, or that it is given up, so that another one
	// may be placed.
	None bool
}

// ErrNothingToResolve says that there is no order that a person could decide about.
var ErrNothingToResolve = errors.New("there is nothing to resolve")

// Resolve settles an order for the name, in any state but gone. No vendor is asked: an
// order ID is verified when the issuer next uses it. While a request is so young that it may
// still be on its way, it is refused.
func Resolve(ctx context.Context, storage certmagic.Storage, name string, r Resolution) (*Entry, error) {
	if r.None == (r.OrderID != "") {
		return nil, errors.New("give either an order ID or none")
	}
	l, e, err := locate(ctx, storage, name, r)
	if err != nil {
		return nil, err
	}
	return l.Resolve(ctx, e.ID, r)
}

// Resolve settles the entry with the ID; see the function of that name.
func (l *Ledger) Resolve(ctx context.Context, id string, r Resolution) (*Entry, error) {
	e, err := l.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	if e.State == Gone {
		return nil, fmt.Errorf("%w: the order for %s is gone", ErrNothingToResolve, strings.Join(e.Names, ", "))
	}
	if e.State == Asked {
		if ready := e.Attempt.Started.Add(e.Attempt.AbsenceAge); l.Time().Before(ready) {
			return nil, fmt.Errorf("the request with reference %s for %s was sent at %s and may still be on its way; "+
				"try again after %s", e.Attempt.Reference, strings.Join(e.Names, ", "),
				e.Attempt.Started.UTC().Format(time.RFC3339), ready.UTC().Format(time.RFC3339))
		}
	}
	next, err := l.Write(ctx, e, func(e *Entry) {
		ended := e.Flag != nil && e.Flag.Ended
		e.Flag, e.Problem = nil, ""
		switch reissue := e.State == Asked && e.Attempt.Kind == KindReissue; {
		case r.None && reissue && e.Certificate != nil && !ended:
			// There was no reissue. The paid order is what it was before.
			e.State = Issued
		case r.None:
			e.State = Gone
		default:
			e.use(r.OrderID, reissue, l.Time())
		}
	})
	if err == nil && r.None {
		// Nobody gets a certificate for it any more.
		err = l.ForgetKey(ctx, e.Attempt.Reference)
	}
	return next, err
}

// use makes the entry go on with the order of the given ID.
func (e *Entry) use(id string, reissue bool, now time.Time) {
	if known := e.OrderID == id || e.State == Asked; !known {
		// Nothing is known of the CSR that this order was placed with.
		e.Attempt = Attempt{Kind: KindAdoption, Reference: e.Attempt.Reference, Started: now}
	}
	e.Attempt.AnyKey = true
	if !reissue {
		e.RootID = id
	}
	e.OrderID, e.State = id, Open
}

// locate finds the one order for the name that is meant.
func locate(ctx context.Context, storage certmagic.Storage, name string, r Resolution) (*Ledger, *Entry, error) {
	files, err := storage.List(ctx, root, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("listing the ledgers: %w", err)
	}
	type found struct {
		*Ledger
		*Entry
	}
	var all []found
	known := false
	seen := make(map[string]bool)
	for _, key := range files {
		// commercial/<vendor>/<account>/entries/<id>.json
		parts := strings.Split(key, "/")
		if len(parts) != 5 || parts[3] != entries || r.Vendor != "" && parts[1] != Escape(r.Vendor) {
			continue
		}
		prefix := path.Join(parts[:3]...)
		if seen[prefix] {
			continue
		}
		seen[prefix] = true
		l := &Ledger{Storage: storage, Prefix: prefix, Memory: new(Memory)}
		// A person may have to settle an order beside an entry that is damaged.
		err := l.Refresh(ctx)
		if _, damaged := errors.AsType[*DamagedEntryError](err); err != nil && !damaged {
			return nil, nil, err
		}
		about, err := l.About(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range about {
			if !e.Speaks(name) || r.Entry != "" && e.ID != r.Entry {
				continue
			}
			known = true
			if e.State != Gone && !e.Over(l.Time()) {
				all = append(all, found{l, e})
			}
		}
	}
	if len(all) > 1 {
		// The one that asks for a person is meant.
		if flagged := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return f.Flag == nil }); len(flagged) == 1 {
			all = flagged
		}
	}
	switch {
	case len(all) == 1:
		return all[0].Ledger, all[0].Entry, nil
	case len(all) == 0 && known:
		return nil, nil, fmt.Errorf("%w: no order for %s is in force", ErrNothingToResolve, name)
	case len(all) == 0:
		return nil, nil, fmt.Errorf("%w: the ledger knows no order for %s", ErrNothingToResolve, name)
	}
	var which []string
	for _, f := range all {
		which = append(which, fmt.Sprintf("%s at %s (order %s, %s)", f.ID, strings.Split(f.Prefix, "/")[1], f.OrderID, f.State))
	}
	return nil, nil, fmt.Errorf("there are several orders for %s; say which with --entry: %s", name, strings.Join(which, "; "))
}
