//go:build !race

// These tests run thousands of operations to notice anything, and the race detector makes
// them take ten times as long.

package model

import (
	"hash/fnv"
	"testing"
)

// TestRepeat expects that a tape repeats its history, line by line.
func TestRepeat(t *testing.T) {
	digest := func(tape *Tape, kind Kind) (uint64, []uint16) {
		h := fnv.New64a()
		r := History(t, tape, kind.Params, newMini(rules{}), func(line string) { h.Write([]byte(line + "\n")) })
		return h.Sum64(), r.Choices
	}
	const n = 8
	for _, kind := range Kinds(Quick()) {
		differ := 0
		for seed := range uint64(n) {
			first, choices := digest(SeedTape(seed), kind)
			if second, _ := digest(DataTape(choices), kind); first != second {
				differ++
			}
		}
		t.Logf("%s: %d of %d histories differ", kind.Name, differ, n)
		if differ > (n+1)/2 {
			t.Errorf("%s: %d of %d histories cannot be repeated", kind.Name, differ, n)
		}
	}
}
