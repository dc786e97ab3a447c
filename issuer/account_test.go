package issuer

import (
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

// certmagic goes on the moment its call ends. It tells that it has stored the certificate,
// and may ask for another one at once.
func TestCallerGoesOnAtOnce(t *testing.T) {
	a := newAccount()
	first := wantFor(t, "example.com", newKey(t))
	done, _, ours := a.ask(first)
	if !ours {
		t.Fatal("the first call is not the one that is worked for")
	}
	a.use(first)
	went := make(chan struct{})
	go func() {
		defer close(went)
		<-done
		if !a.stored("example.com") {
			t.Error("nobody is interested in what was stored")
		}
		if _, why, ours := a.ask(wantFor(t, "example.com", newKey(t))); !ours {
			t.Errorf("the next call is not heard: %v", why)
		}
	}()
	if !a.give(first, answer{entry: &ledger.Entry{Attempt: ledger.Attempt{Reference: "r"}}}) {
		t.Error("nobody waited")
	}
	<-went
	if h, ok := a.takeHandover("example.com"); !ok || !h.stored || h.reference != "r" {
		t.Errorf("handover %+v, %t", h, ok)
	}
	if a.give(first, answer{}) {
		t.Error("a call was ended twice")
	}
}

// What is remembered of an entry's reissues goes when nobody reissues it any more.
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
