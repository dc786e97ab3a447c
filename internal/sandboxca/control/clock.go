package control

import (
	"sync"
	"time"
)

// Clock is a clock that can be put forward. The zero value shows the system time.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

// Now is the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Advance puts the clock forward, or back if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}
