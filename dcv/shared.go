package dcv

import (
	"context"
	"sync"
	"time"
)

const (
	// readInterval is the shortest time from the start of one read to that of the
	// next of the same thing.
	readInterval = 50 * time.Millisecond

	// maxReadInterval bounds the time that a slow storage is given in between.
	maxReadInterval = time.Second

	// readTimeout bounds one read. CAs give up after about ten seconds.
	readTimeout = 5 * time.Second
)

// shared is a value that is read again and again, each time for everybody who has
// asked since the last read began. Its zero value has never been read.
type shared[T any] struct {
	mu      sync.Mutex
	value   T
	asOf    time.Time     // when the read began that found the value
	err     error         // of the last read that failed, until it is returned
	began   time.Time     // when the last read began, which may still go on
	pause   time.Duration // from its begin to that of the next
	running *flight
	next    *flight // does not yet read
}

// flight is one read. Done is closed at its end.
type flight struct{ done chan struct{} }

// last returns the value if it is from a read that began less than the age ago.
func (s *shared[T]) last(age time.Duration) (value T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asOf) >= age {
		return value, false
	}
	return s.value, true
}

// known returns the value of the last read, however long ago that was.
func (s *shared[T]) known() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// idle reports whether nobody waits for a read and the last one is that long ago.
func (s *shared[T]) idle(age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running == nil && s.next == nil && time.Since(s.began) >= max(age, s.pause)
}

// after returns the value from a read that began after the call, or the last one
// known if the context ends first. The error is one that has not been returned
// yet, of any read; it does not mean that the value is of no use.
//
// Read is given the last value. It runs in a goroutine of its own, because it does
// not end with the first of those who wait.
func (s *shared[T]) after(ctx context.Context, read func(ctx context.Context, last T) (T, error)) (T, error) {
	s.mu.Lock()
	next := s.next
	if next == nil {
		next = &flight{done: make(chan struct{})}
		s.next = next
		go s.fly(s.running, next, read)
	}
	s.mu.Unlock()

	select {
	case <-next.done:
	case <-ctx.Done():
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	s.err = nil
	return s.value, err
}

// fly reads as soon as the read before has ended and the pause is over.
func (s *shared[T]) fly(before, next *flight, read func(ctx context.Context, last T) (T, error)) {
	if before != nil {
		<-before.done
	}
	s.mu.Lock()
	pause := s.pause - time.Since(s.began)
	s.mu.Unlock()
	if pause > 0 {
		time.Sleep(pause)
	}

	s.mu.Lock()
	began := time.Now()
	s.running, s.next, s.began = next, nil, began
	last := s.value
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	value, err := read(ctx, last)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.asOf, s.running = value, began, nil
	if err != nil {
		s.err = err
	}
	// A storage that takes long is not kept busy all the time.
	s.pause = min(max(readInterval, 4*time.Since(began)), maxReadInterval)
	close(next.done)
}
