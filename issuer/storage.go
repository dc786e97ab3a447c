package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// LateStorageError says that nothing is bought because the storage shows one server what
// another has written later than the option settle allows for: both could order the same.
type LateStorageError struct {
	Name   string
	Settle time.Duration // as configured
	Late   time.Duration // as seen, at least
}

func (e *LateStorageError) Error() string {
	return fmt.Sprintf("nothing is bought for %s: the storage did not show one connection what another one had written %s before, "+
		"so two servers could order the same; set settle, which is %s, to more than that, for example: settle %s",
		e.Name, e.Late.Round(time.Millisecond), e.Settle, suggestedSettle(e.Late))
}

// suggestedSettle is twice what was seen, in whole seconds.
func suggestedSettle(late time.Duration) time.Duration {
	return (2 * late).Truncate(time.Second) + time.Second
}

// tryAgainAfter is how long after a trial of the storage that failed, or found it late, the
// next one is made.
const tryAgainAfter = 10 * time.Minute

// opener opens a storage a second time. What it returns must be ended.
type opener func(context.Context, certmagic.Storage) (again certmagic.Storage, end func(), err error)

// tryStorage finds out how late the storage shows what was written, once in a process and
// account. It ends when the storage is found to keep to settle, or with ctx.
func (f *flow) tryStorage(ctx context.Context, open opener) {
	if f.rules.settle == 0 {
		return // nothing is at stake
	}
	other, end, err := open(ctx, f.ledger.Storage)
	if err != nil {
		f.logger.Debug("the storage cannot be tried", zap.String("vendor", f.about.Name), zap.Error(err))
		return
	}
	defer end()
	for {
		begins, over := f.account.beginTrial()
		if begins {
			over = f.tryOnce(ctx, other)
			f.account.endTrial(over)
			if over {
				f.tryLocks(ctx, other)
			}
		}
		if over || poll.Wait(ctx, tryAgainAfter) != nil {
			return
		}
	}
}

func (f *flow) tryLocks(ctx context.Context, other certmagic.Storage) {
	if excludes, err := ledger.Excludes(ctx, f.ledger.Storage, other); err == nil && !excludes {
		f.logger.Warn("the locks of the storage do not keep other servers out; nothing is paid for twice, but servers may do the same work at the same time",
			zap.String("vendor", f.about.Name))
	}
}

// tryOnce reports whether there is nothing more to find out.
func (f *flow) tryOnce(ctx context.Context, other certmagic.Storage) bool {
	log := f.logger.With(zap.String("vendor", f.about.Name), zap.Duration("settle", f.rules.settle))
	// What is seen counts at once: a purchase may be about to be paid for.
	late, err := ledger.Lateness(ctx, f.ledger.Storage, other, f.account.seenLate)
	log = log.With(zap.Duration("late", late))
	switch {
	case ctx.Err() != nil:
		return false
	case late > f.rules.settle:
		log.Error("what is written to the storage can be read later than settle allows for; nothing is bought until settle is raised", zap.Error(err))
	case err != nil:
		log.Warn("testing the storage failed; trying again", zap.Error(err))
	default:
		log.Debug("the storage keeps to settle")
	}
	if err == nil {
		f.account.storageIs(late)
	}
	return err == nil && late <= f.rules.settle
}

// storageInTime returns an error if the storage was seen to be later than settle. It waits while
// that is being found out, but no longer than sendBefore.
func (f *flow) storageInTime(ctx context.Context, name string) error {
	for begin := time.Now(); f.account.inTrial() && f.account.storageLate() <= f.rules.settle && time.Since(begin) < sendBefore; {
		if err := poll.Wait(ctx, trialLook); err != nil {
			return err
		}
	}
	return f.storageKept(name)
}

// storageKept returns an error if the storage is known to be later than settle.
func (f *flow) storageKept(name string) error {
	if late := f.account.storageLate(); f.rules.settle > 0 && late > f.rules.settle {
		return &LateStorageError{name, f.rules.settle, late}
	}
	return nil
}

// trialLook is how often a purchase checks whether the trial of the storage has ended.
const trialLook = 50 * time.Millisecond

// errOneHandle is why a storage cannot be tried.
var errOneHandle = errors.New("the storage cannot be opened a second time from here")

// openAgain opens a storage once more, so that nothing is shared with the first handle but
// what is behind it: no connection, and no cache. Its errors leave out what the module says,
// which may hold the credentials of its config.
func openAgain(ctx context.Context, storage certmagic.Storage) (again certmagic.Storage, end func(), err error) {
	if s, ok := storage.(*certmagic.FileStorage); ok {
		return &certmagic.FileStorage{Path: s.Path}, func() {}, nil
	}
	module, ok := storage.(caddy.Module)
	if !ok {
		return nil, nil, errOneHandle
	}
	config, err := json.Marshal(storage)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its config cannot be written", errOneHandle)
	}
	// A context of its own, whose end cleans up this module only. It has no parent in Caddy:
	// the end of a derived one runs what the parent has registered for its own end.
	moduleCtx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: its module panics", errOneHandle)
		}
		if err != nil {
			cancel()
		}
	}()
	loaded, err := moduleCtx.LoadModuleByID(string(module.CaddyModule().ID), config)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its module cannot be loaded again", errOneHandle)
	}
	converter, ok := loaded.(caddy.StorageConverter)
	if !ok {
		return nil, nil, errOneHandle
	}
	if again, err = converter.CertMagicStorage(); err != nil {
		return nil, nil, fmt.Errorf("%w: its module gives no storage", errOneHandle)
	}
	return again, cancel, nil
}
