package issuer

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// TestCallerGoesOnAtOnce: certmagic continues the moment its call returns: it reports that it has
// stored the certificate, and may ask for another one at once.
func TestCallerGoesOnAtOnce(t *testing.T) {
	a := newAccount()
	first := wantFor(t, "example.com", newKey(t))
	done, _, ours := a.ask(first)
	if !ours {
		t.Fatal("the first call was not accepted")
	}
	a.use(first)
	went := make(chan struct{})
	go func() {
		defer close(went)
		<-done
		if !a.stored("example.com") {
			t.Error("the report of the stored certificate was ignored")
		}
		if _, why, ours := a.ask(wantFor(t, "example.com", newKey(t))); !ours {
			t.Errorf("the next call was not accepted: %v", why)
		}
	}()
	if !a.give(first, answer{entry: &ledger.Entry{Attempt: ledger.Attempt{Reference: "r"}}}) {
		t.Error("nobody was waiting")
	}
	<-went
	if h, ok := a.takeHandover("example.com"); !ok || !h.stored || h.reference != "r" {
		t.Errorf("handover %+v, %t", h, ok)
	}
	if a.give(first, answer{}) {
		t.Error("a call was ended twice")
	}
}

// TestReissuesAreForgotten: what is remembered of an entry's reissues is forgotten once it is no
// longer reissued.
func TestReissuesAreForgotten(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		a := newAccount()
		f := &flow{ledger: &ledger.Ledger{Memory: &a.ledger}}
		for range 30 {
			a.reissuing("failing", f.jitter)
		}
		a.reissuing("done", f.jitter)
		time.Sleep(tidyEvery + retryMin + time.Minute)
		a.tidyReissues()
		if len(a.reissues) != 1 || a.reissues["failing"] == nil {
			t.Errorf("remembered: %v", a.reissues)
		}
		a.reissued("failing")
		if wait := a.reissueWait("failing"); len(a.reissues) != 0 || wait > 0 {
			t.Errorf("remembered: %v, to wait %s", a.reissues, wait)
		}
	})
}

// TestLookedAt: what the vendor says about a pending order is kept until the order is issued.
func TestLookedAt(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		w := newWorld(t, func(c *hostile.Config) { c.IssueDelay = 2 * time.Hour })
		p := w.start(nil, quickly)
		if _, _, _, ok := p.account.lookedAt("unknown"); ok {
			t.Error("an unknown order has a status")
		}
		p.configure("example.com")
		time.Sleep(time.Hour)
		reference := w.entry("example.com").Attempt.Reference
		said, at, next, ok := p.account.lookedAt(reference)
		if !ok || !strings.HasPrefix(said, "PENDING") || time.Since(at) > p.rules.pace.Max*11/10 || !next.After(time.Now()) {
			t.Errorf("%q at %s, next %s, %t", said, at, next, ok)
		}
		mend := w.ca.Inject(hostile.Fault{Endpoint: "collect", Phase: hostile.BeforeEffect, Kind: hostile.HTTPStatus, Status: 502})
		time.Sleep(time.Until(next) + time.Minute)
		if said, again, _, ok := p.account.lookedAt(reference); !ok || !strings.Contains(said, "502") || !again.After(at) {
			t.Errorf("%q at %s, %t", said, again, ok)
		}
		mend()
		p.untilServed(day, "example.com")
		if said, _, _, ok := p.account.lookedAt(reference); ok {
			t.Errorf("kept for an issued order: %q", said)
		}

		l := p.account.look("long")
		p.account.looked(l, strings.Repeat("ä", maxSaid))
		said, at, next, ok = p.account.lookedAt("long")
		if want := strings.Repeat("ä", maxSaid/2) + "…"; said != want || at.IsZero() || !next.IsZero() || !ok {
			t.Errorf("%q at %s, next %s, %t", said, at, next, ok)
		}
		p.account.later(l, "example.com", time.Minute)
		time.Sleep(time.Hour)
		p.account.looked(l, "CANCELLED")
		if said, _, next, _ := p.account.lookedAt("long"); said != "CANCELLED" || !next.IsZero() {
			t.Errorf("%q, next %s", said, next)
		}
	})
}

// TestPhrasesAreShared: orders with the same status text share the string, and only a few strings
// are kept for sharing.
func TestPhrasesAreShared(t *testing.T) {
	a := newAccount()
	one, other := a.look("one"), a.look("other")
	for i := range 10 * maxPhrases {
		a.looked(one, fmt.Sprint("phrase ", i))
		a.looked(other, fmt.Sprint("phrase ", i))
		if unsafe.StringData(one.said) != unsafe.StringData(other.said) || len(a.phrases) > maxPhrases {
			t.Fatalf("%q and %q of %d", one.said, other.said, len(a.phrases))
		}
	}
}
