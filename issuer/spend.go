package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// SpendLimit bounds how many paid orders may be placed in a span of time.
type SpendLimit struct {
	// How many new paid orders are allowed within the span. Default: 20
	Orders int `json:"orders,omitempty"`

	// The span of time, counted back from now. Default: 24h
	Per caddy.Duration `json:"per,omitempty"`
}

// The default limit is far above what a normal site needs and far below what a
// runaway loop could spend unnoticed.
const (
	defaultSpendOrders = 20
	defaultSpendPer    = 24 * time.Hour
)

// SpendLimitError says that the limit of paid orders is reached.
type SpendLimitError struct {
	Limit SpendLimit
	Next  time.Time // when the next order is allowed
}

func (e *SpendLimitError) Error() string {
	return fmt.Sprintf("spend_limit reached: %d paid orders within %s; the next is allowed at %s (raise spend_limit if this is intended)",
		e.Limit.Orders, time.Duration(e.Limit.Per), e.Next.UTC().Format(time.RFC3339))
}

// spending is the stored list of paid calls of one account, shared by all servers
// on the storage.
type spending struct {
	Version int       `json:"version"`
	Calls   []paidOne `json:"calls"`
}

type paidOne struct {
	Time      time.Time `json:"time"`
	Reference string    `json:"reference"`
	Name      string    `json:"name"`
}

func (l *ledger) spendKey() string { return path.Join(l.prefix, "spending.json") }

// reserveSpending counts a paid call that is about to be made, or refuses it.
func (l *ledger) reserveSpending(ctx context.Context, limit SpendLimit, reference, name string) error {
	return l.updateSpending(ctx, func(s *spending) error {
		now := time.Now().UTC()
		s.Calls = slices.DeleteFunc(s.Calls, func(c paidOne) bool {
			return now.Sub(c.Time) >= max(time.Duration(limit.Per), defaultSpendPer)
		})
		var within []paidOne
		for _, c := range s.Calls {
			if now.Sub(c.Time) < time.Duration(limit.Per) {
				within = append(within, c)
			}
		}
		if len(within) >= limit.Orders {
			return &SpendLimitError{limit, within[len(within)-limit.Orders].Time.Add(time.Duration(limit.Per))}
		}
		s.Calls = append(s.Calls, paidOne{now, reference, name})
		return nil
	})
}

// releaseSpending takes back a reservation whose call is known to have bought nothing.
func (l *ledger) releaseSpending(ctx context.Context, reference string) error {
	return l.updateSpending(ctx, func(s *spending) error {
		s.Calls = slices.DeleteFunc(s.Calls, func(c paidOne) bool { return c.Reference == reference })
		return nil
	})
}

func (l *ledger) updateSpending(ctx context.Context, change func(*spending) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	key := l.spendKey()
	if err := l.storage.Lock(ctx, lockName(key)); err != nil {
		return fmt.Errorf("locking %s: %w", key, err)
	}
	// As in ledger.write, a lock that stays behind expires by itself.
	defer func() { _ = l.storage.Unlock(ctx, lockName(key)) }()

	s := spending{Version: recordVersion}
	data, err := l.storage.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("reading %s: %w", key, err)
	default:
		if err := json.Unmarshal(data, &s); err != nil {
			return &DamagedRecordError{key, err}
		}
		if s.Version != recordVersion {
			return &DamagedRecordError{key, fmt.Errorf("version %d is unknown", s.Version)}
		}
	}
	if err := change(&s); err != nil {
		return err
	}
	if data, err = json.MarshalIndent(s, "", "  "); err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := l.storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}
