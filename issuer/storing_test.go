package issuer

import (
	"errors"
	"testing"
)

// TestIssueDoesNotWaitForStoring: storing a certificate takes certmagic's lock for the name, which a
// call of Issue holds. So no call waits meanwhile: neither one that came before, nor one that comes
// in between.
func TestIssueDoesNotWaitForStoring(t *testing.T) {
	const name = "shop.example.com"
	a := newAccount()
	before := &want{name: name, key: "1"}
	done, why, ours := a.ask(before)
	if !ours || why != nil {
		t.Fatalf("ours %v, %v", ours, why)
	}
	stored := a.store(name)
	select {
	case with := <-done:
		if !errors.Is(with.err, errDelivered) {
			t.Errorf("the call ended with %v", with.err)
		}
	default:
		t.Error("the call that came before still waits")
	}
	if _, why, ours := a.ask(&want{name: name, key: "2"}); ours || !errors.Is(why, errDelivered) {
		t.Errorf("a call that comes meanwhile waits: ours %v, %v", ours, why)
	}
	if _, _, ours := a.ask(&want{name: "other.example.com", key: "3"}); !ours {
		t.Error("a call for another name was turned away")
	}
	stored(false)
	if a.want(name) != before {
		t.Error("what could not be stored is no longer wanted")
	}
	if _, why, ours := a.ask(&want{name: name, key: "1"}); !ours || why != nil {
		t.Errorf("after that: ours %v, %v", ours, why)
	}
}

// TestStoredCertificateIsEnough: a call that comes just before a certificate with another key is
// stored leaves nothing behind: it would be taken for a renewal that somebody forces, and the order
// would be reissued.
func TestStoredCertificateIsEnough(t *testing.T) {
	const name = "shop.example.com"
	a := newAccount()
	// The round that delivers has begun, although nobody waits for it.
	if a.want(name) != nil {
		t.Fatal("somebody wants a certificate")
	}
	done, _, _ := a.ask(&want{name: name, key: "another"})
	end := a.store(name)
	if with := <-done; !errors.Is(with.err, errDelivered) {
		t.Errorf("the call ended with %v", with.err)
	}
	end(true)
	if w := a.want(name); w != nil {
		t.Errorf("a certificate for key %q is still wanted", w.key)
	}
}
