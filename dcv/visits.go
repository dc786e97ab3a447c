package dcv

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxVisits    = 64  // remembered per challenge ID; six perspectives come about twice each
	maxUserAgent = 256 // bytes kept of a visitor's user agent
)

// Visit is one answered request for a validation file.
type Visit struct {
	Time       time.Time
	Host       string // as normalized by NormalizeHost
	RemoteAddr string // host:port of the connection
	UserAgent  string // cut at 256 bytes
	Status     int    // HTTP status of our answer
}

// visitLog counts the visits to one ID and remembers the newest.
type visitLog struct {
	mu    sync.Mutex
	total uint64
	ring  []Visit // up to maxVisits; then the oldest stands at total % maxVisits
}

func (l *visitLog) add(v Visit) {
	if len(v.UserAgent) > maxUserAgent {
		v.UserAgent = strings.Clone(v.UserAgent[:maxUserAgent])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < maxVisits {
		l.ring = append(l.ring, v)
	} else {
		l.ring[l.total%maxVisits] = v
	}
	l.total++
}

// newest returns the remembered visits, oldest first, and the number of all.
func (l *visitLog) newest() ([]Visit, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < maxVisits {
		return slices.Clone(l.ring), l.total
	}
	oldest := l.total % maxVisits
	return slices.Concat(l.ring[oldest:], l.ring[:oldest]), l.total
}
