package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Beside the entries there are two kinds of files that live for a short time, and one that
// tells servers apart what they look at.
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

// Draft is what is presented in DNS for an order that is not stored yet. Records do not go
// away by themselves when a process dies, so that they are noted before they are added.
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

// Turns are when servers look next, by their clocks, at the orders that have their
// certificates, so that each is looked at by one of them. They may be lost: then it is looked at
// more often.
type Turns struct {
	// Parts are those of all orders, see [Memory.Certified].
	Parts []time.Time `json:"parts"`

	// Changes is when the vendor is asked which orders have changed, and Since since when.
	Changes time.Time `json:"changes,omitzero"`
	Since   time.Time `json:"since,omitzero"`
}

// Turns reads them. Those that are not there, or cannot be read, are zero.
func (l *Ledger) Turns(ctx context.Context) (t Turns, err error) {
	data, err := l.Storage.Load(ctx, path.Join(l.Prefix, turns))
	if errors.Is(err, fs.ErrNotExist) {
		return Turns{}, nil
	}
	if err != nil {
		return Turns{}, fmt.Errorf("reading whose turn it is to look at orders: %w", err)
	}
	if json.Unmarshal(data, &t) != nil {
		t = Turns{} // as if it were lost
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
	data, err := json.Marshal(t)
	if err == nil {
		ctx, cancel := storageContext(ctx)
		defer cancel()
		err = l.Storage.Store(ctx, path.Join(l.Prefix, turns), data)
	}
	if err != nil {
		return fmt.Errorf("noting whose turn it is to look at orders: %w", err)
	}
	return nil
}
