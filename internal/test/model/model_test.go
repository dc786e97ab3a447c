//go:build !race

// These tests run thousands of operations to notice anything, and the race detector makes
// them take ten times as long.

package model

import (
	"testing"
	"time"
)

// TestMini expects that a system which follows the rules passes.
func TestMini(t *testing.T) {
	Check(t, 40, Kinds(Quick()), newMini(rules{}))
}

// TestNaive expects that one which buys whenever it is asked is caught soon.
func TestNaive(t *testing.T) {
	stats, failed := Find(t, 20, 0, Kinds(Quick())[0], newNaive)
	t.Log(stats)
	if len(failed) < 15 {
		t.Errorf("it was caught in %d of %d histories", len(failed), stats.Histories)
	}
	for _, f := range failed[:min(1, len(failed))] {
		t.Log(f.Violation)
	}
}

// TestMutants removes the rules, one at a time, and expects that the model notices.
func TestMutants(t *testing.T) {
	lockless := func(change func(*Params)) Kind {
		p := Quick()
		p.Locks = LocksNone
		change(&p)
		return Kind{"lockless", p}
	}
	none := func(*Params) {}
	for _, mutant := range []struct {
		name string
		rules
		kind Kind
	}{
		{"no second list", rules{noSecondList: true}, lockless(none)},
		{"no settling", rules{noSettle: true}, Kinds(Quick())[3]},
		{"absence by the wall clock", rules{wallClockAbsence: true}, lockless(none)},
		{"no age of absence", rules{absenceAge: time.Nanosecond}, lockless(none)},
		{"look-ups that lie longer than the age", rules{}, lockless(func(p *Params) { p.Lie = 25 * time.Minute })},
		{"no late check", rules{noLateCheck: true}, lockless(func(p *Params) { p.Slow, p.Visible, p.Settle = true, 30*time.Second, 35*time.Second })},
		{"a margin above half the term", rules{uncapped: true}, lockless(none)},
		{"the whole group or nothing", rules{wholeGroup: true}, lockless(none)},
	} {
		t.Run(mutant.name, func(t *testing.T) {
			stats, failed := Find(t, 400, 1, mutant.kind, newMini(mutant.rules))
			if len(failed) == 0 {
				t.Fatalf("not noticed in %d histories", stats.Histories)
			}
			t.Logf("noticed in history %d: %s", stats.Histories, failed[0].Violation)
		})
	}
}
