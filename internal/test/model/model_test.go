package model

import (
	"testing"
)

// TestMini expects that a system which follows the rules passes.
func TestMini(t *testing.T) {
	Check(t, 150, Kinds(Quick()), newMini(rules{}))
}

// TestNaive expects that one which buys whenever it is asked is caught, soon.
func TestNaive(t *testing.T) {
	stats, failed := Find(t, 20, 0, Kinds(Quick())[0], newNaive)
	t.Log(stats)
	if len(failed) < 15 {
		t.Errorf("%d of %d histories were noticed", len(failed), stats.Histories)
	}
	if len(failed) > 0 {
		t.Log(failed[0].Violation)
	}
}
