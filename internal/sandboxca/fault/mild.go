package fault

import (
	"math/rand/v2"
	"net/http"
	"time"
)

// Source decides what goes wrong with a call that no injected fault matches. The number
// counts the calls of an injector from 1.
type Source func(number uint64, phase Phase) (Fault, bool)

// Mild is how a seller behaves on an ordinary day, repeatable by its seed: of a hundred
// calls about five are slow, three find the service down, two are carried out but the
// answer is lost, and all others answer with their fields in any order and with fields
// that nobody has heard of.
func Mild(seed uint64) Source {
	return func(number uint64, phase Phase) (Fault, bool) {
		chance := rand.New(rand.NewPCG(seed, number)) //nolint:gosec // to be repeatable
		luck, more := chance.IntN(100), chance.Uint64()
		before := phase == BeforeEffect
		switch {
		case luck < 5:
			slow := time.Duration(500+more%2500) * time.Millisecond
			return Fault{Kind: Delay, Delay: slow}, before
		case luck < 8:
			return Fault{Kind: HTTPStatus, Status: http.StatusServiceUnavailable, Body: []byte("service unavailable\n")}, before
		case luck < 9:
			return Fault{Kind: Reset}, !before
		case luck < 10:
			return Fault{Kind: HTML}, !before
		}
		return Fault{Kind: Strange, Seed: more}, !before
	}
}

// Limit is how many calls a seller answers, counted for each dialect over a sliding
// window. The zero value is no limit.
type Limit struct {
	Calls int
	Per   time.Duration

	// Block is how long all calls are refused after one too many. DigiCert says that it
	// does so, but not for how long.
	Block time.Duration
}

// DigiCertLimit is what DigiCert documents for each API key, with a block of five
// seconds, which is assumed
// (https://dev.digicert.com/en/certcentral-apis/services-api/rate-limits.html).
var DigiCertLimit = Limit{Calls: 100, Per: 5 * time.Second, Block: 5 * time.Second}

// window is the recent calls of a dialect.
type window struct {
	calls   []time.Time // no more than the limit
	blocked time.Time   // calls are refused until then
}

// over counts a call and reports whether it is one too many.
func (w *window) over(l Limit, now time.Time) bool {
	for len(w.calls) > 0 && !now.Before(w.calls[0].Add(l.Per)) {
		w.calls = w.calls[1:]
	}
	if now.Before(w.blocked) {
		return true
	}
	if len(w.calls) >= l.Calls {
		w.blocked = now.Add(l.Block)
		return true
	}
	w.calls = append(w.calls, now)
	return false
}
