package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

const (
	// leaseTime is how long a lock stays held if its process does not renew it.
	leaseTime = 5 * time.Second

	// retryTime is how long to wait before trying a taken lock again.
	retryTime = 500 * time.Millisecond
)

// lease is a lock that is held.
type lease struct {
	token string
	stop  context.CancelFunc
	ended chan struct{} // closed when nobody renews it any more
}

// Both do nothing unless the lock has the token of the caller.
var (
	renewScript  = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0`)
	unlockScript = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)
)

// Lock implements certmagic.Locker.
func (s *store) Lock(ctx context.Context, name string) error {
	for {
		locked, err := s.TryLock(ctx, name)
		if locked || err != nil {
			return err
		}
		select {
		case <-time.After(retryTime):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// TryLock implements certmagic.TryLocker.
func (s *store) TryLock(ctx context.Context, name string) (bool, error) {
	if s.late > 0 {
		return true, nil
	}
	token := s.name + " " + rand.Text()
	locked, err := s.db.SetNX(ctx, "l/"+name, token, leaseTime).Result()
	if err != nil {
		return false, fmt.Errorf("locking %s: %w", name, err)
	}
	if !locked {
		return false, nil
	}
	renewing, stop := context.WithCancel(context.Background())
	l := &lease{token: token, stop: stop, ended: make(chan struct{})}
	s.mu.Lock()
	s.held[name] = l // an earlier lease is lost, and its token with it
	s.mu.Unlock()
	go s.renew(renewing, name, l)
	return true, nil
}

// renew keeps a lock until it is released, or turns out to be lost.
func (s *store) renew(ctx context.Context, name string, l *lease) {
	defer close(l.ended)
	tick := time.NewTicker(leaseTime / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		renewed, err := renewScript.Run(ctx, s.db, []string{"l/" + name}, l.token, leaseTime.Milliseconds()).Int()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.logger.Warn("renewing a lock", zap.String("name", name), zap.Error(err))
		case renewed == 0:
			s.logger.Warn("a lock is lost", zap.String("name", name))
			return
		}
	}
}

// Unlock implements certmagic.Locker.
func (s *store) Unlock(ctx context.Context, name string) error {
	if s.late > 0 {
		return nil
	}
	s.mu.Lock()
	l := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("unlocking %s: it is not locked here", name)
	}
	l.stop()
	<-l.ended
	released, err := unlockScript.Run(ctx, s.db, []string{"l/" + name}, l.token).Int()
	if err == nil && released == 0 {
		err = fmt.Errorf("its lease of %s had ended", leaseTime)
	}
	if err != nil {
		return fmt.Errorf("unlocking %s: %w", name, err)
	}
	return nil
}
