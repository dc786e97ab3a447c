package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Beside the entries there are two kinds of files that live for a short time, private keys and
// drafts, and two notes that may be lost: whose turn it is to look at orders, and prices.
//
// The private key of a request is kept from before it is sent until its certificate is
// stored with it. certmagic makes a new key for each attempt and forgets it when the
// attempt fails, and a certificate without its key would have to be reissued.

func (l *Ledger) keyFile(reference string) string {
	return path.Join(l.Prefix, keys, reference+".pem")
}

// KeepKey stores the private key of a request, in PEM.
func (l *Ledger) KeepKey(ctx context.Context, reference string, pem []byte) error {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	if err := l.Storage.Store(ctx, l.keyFile(reference), pem); err != nil {
		return fmt.Errorf("keeping the private key of request %s: %w", reference, err)
	}
	return nil
}

// Key returns the private key of a request, or fs.ErrNotExist.
func (l *Ledger) Key(ctx context.Context, reference string) ([]byte, error) {
	pem, err := l.Storage.Load(ctx, l.keyFile(reference))
	if err != nil {
		return nil, fmt.Errorf("reading the private key of request %s: %w", reference, err)
	}
	return pem, nil
}

// ForgetKey removes the private key of a request. One that is not there is no error.
func (l *Ledger) ForgetKey(ctx context.Context, reference string) error {
	return l.remove(ctx, l.keyFile(reference))
}

// Keys returns the references of the requests whose private keys are kept.
func (l *Ledger) Keys(ctx context.Context) ([]string, error) {
	files, err := l.Storage.List(ctx, path.Join(l.Prefix, keys), false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing private keys: %w", err)
	}
	var references []string
	for _, key := range files {
		if reference, ok := strings.CutSuffix(path.Base(key), ".pem"); ok {
			references = append(references, reference)
		}
	}
	return references, nil
}

func (l *Ledger) remove(ctx context.Context, key string) error {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	if err := l.Storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", key, err)
	}
	return nil
}

// Draft is what is presented in DNS for an order that is not stored yet. Records do not go away
// by themselves when a process dies, so they are noted before they are added.
type Draft struct {
	Reference  string              `json:"reference"`
	Names      []string            `json:"names"`
	Method     vendors.Method      `json:"method"`
	Challenges []vendors.Challenge `json:"challenges"`
	Started    time.Time           `json:"started"`
}

func (l *Ledger) draftFile(reference string) string {
	return path.Join(l.Prefix, drafts, reference+".json")
}

// KeepDraft stores a draft.
func (l *Ledger) KeepDraft(ctx context.Context, d Draft) error {
	ctx, cancel := storageContext(ctx)
	defer cancel()
	data, err := json.Marshal(d)
	if err == nil {
		err = l.Storage.Store(ctx, l.draftFile(d.Reference), data)
	}
	if err != nil {
		return fmt.Errorf("noting the DNS records of request %s: %w", d.Reference, err)
	}
	return nil
}

// ForgetDraft removes a draft. One that is not there is no error.
func (l *Ledger) ForgetDraft(ctx context.Context, reference string) error {
	return l.remove(ctx, l.draftFile(reference))
}

// draftAge is how old a draft must be before another process takes it for left behind. No
// order is prepared for that long.
const draftAge = time.Hour

// LeftBehind returns the drafts of processes that are gone.
func (l *Ledger) LeftBehind(ctx context.Context) ([]Draft, error) {
	files, err := l.Storage.List(ctx, path.Join(l.Prefix, drafts), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing drafts: %w", err)
	}
	var left []Draft
	for _, key := range files {
		data, err := l.Storage.Load(ctx, key)
		if err != nil {
			continue
		}
		var d Draft
		if json.Unmarshal(data, &d) != nil || d.Reference != strings.TrimSuffix(path.Base(key), ".json") {
			continue
		}
		if l.Time().Sub(d.Started) > draftAge {
			left = append(left, d)
		}
	}
	return left, nil
}

// Turns are when servers look next, by their clocks, at the orders that have their certificates,
// so that only one of them looks at each. They may be lost: then each order is looked at more
// often.
type Turns struct {
	// Parts are the turns of the parts of all orders, see [Memory.Certified].
	Parts []time.Time `json:"parts"`

	// Changes is when the vendor is next asked which orders have changed, and Since the time
	// since which it is asked.
	Changes time.Time `json:"changes,omitzero"`
	Since   time.Time `json:"since,omitzero"`
}

// Turns reads them. Those that are not there, or cannot be read, are zero.
func (l *Ledger) Turns(ctx context.Context) (t Turns, err error) {
	if err := l.note(ctx, turns, &t); err != nil {
		return Turns{}, fmt.Errorf("reading which server looks at orders: %w", err)
	}
	return t, nil
}

// SetTurns changes them.
func (l *Ledger) SetTurns(ctx context.Context, change func(*Turns)) error {
	t, err := l.Turns(ctx)
	if err != nil {
		return err
	}
	change(&t)
	if err := l.setNote(ctx, turns, t); err != nil {
		return fmt.Errorf("writing down which server looks at orders: %w", err)
	}
	return nil
}

// Price is what the vendor has asked for one name.
type Price struct {
	// Text is as the vendor writes it. It is empty as long as the vendor has not told.
	Text string `json:"price,omitempty"`

	// Since is when that was told first, and Asked when the vendor was asked last.
	Since time.Time `json:"since,omitzero"`
	Asked time.Time `json:"asked"`
}

// Prices are what the vendor has asked for its products, by product and term. They may be lost:
// then a change is not noticed.
type Prices map[string]Price

// Prices reads them. Those that are not there, or cannot be read, are none.
func (l *Ledger) Prices(ctx context.Context) (p Prices, err error) {
	if err := l.note(ctx, prices, &p); err != nil {
		return nil, fmt.Errorf("reading earlier prices: %w", err)
	}
	return p, nil
}

// SetPrice changes one of them.
func (l *Ledger) SetPrice(ctx context.Context, of string, change func(*Price)) error {
	all, err := l.Prices(ctx)
	if err != nil {
		return err
	}
	if all == nil {
		all = make(Prices)
	}
	price := all[of]
	change(&price)
	all[of] = price
	if err := l.setNote(ctx, prices, all); err != nil {
		return fmt.Errorf("noting the price of %s: %w", of, err)
	}
	return nil
}

// note reads a small file beside the entries, which may be lost. One that is not there, or is
// damaged, leaves v zero.
func (l *Ledger) note(ctx context.Context, file string, v any) error {
	data, err := l.Storage.Load(ctx, path.Join(l.Prefix, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if json.Unmarshal(data, v) != nil {
		reflect.ValueOf(v).Elem().SetZero()
	}
	return nil
}

func (l *Ledger) setNote(ctx context.Context, file string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := storageContext(ctx)
	defer cancel()
	return l.Storage.Store(ctx, path.Join(l.Prefix, file), data)
}
