package model

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTapeRepeats(t *testing.T) {
	first := SeedTape(7)
	for n := 1; n <= 60000; n += 7 {
		first.Pick(n)
	}
	for range 100 {
		first.Pick(1) // a run of zeros
	}
	again, err := ParseTape(first.String())
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 60000; n += 7 {
		again.Pick(n)
	}
	trimmed := first.Said()[:len(first.Said())-100]
	if !slices.Equal(trimmed, again.Said()) {
		t.Error("the tape says something else when it is read again")
	}
	if again.Pick(200) != 0 {
		t.Error("an ended tape does not say 0")
	}
	seed, err := ParseTape("seed:7")
	if err != nil {
		t.Fatal(err)
	}
	if seed.Pick(1000) != SeedTape(7).Pick(1000) {
		t.Error("a seed does not repeat itself")
	}
}

func TestTapeRefuses(t *testing.T) {
	for _, text := range []string{"", "AAEC", "v2.AAEC", "seed:x", "v1.%", "v1.AA", "v1.gA", "v1." + strings.Repeat("AP___w8", 2)} {
		if _, err := ParseTape(text); err == nil {
			t.Errorf("%q was accepted as a tape", text)
		}
	}
}

func FuzzTape(f *testing.F) {
	f.Add("v1.AAEBAQABAw")
	f.Fuzz(func(t *testing.T, text string) {
		tape, err := ParseTape(text)
		if err != nil || tape.rnd != nil {
			return
		}
		for range tape.data {
			tape.Pick(1 << 16)
		}
		again, err := ParseTape(tape.String())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(again.data); !slices.Equal(again.data, tape.data[:n]) || weight(tape.data[n:]) > 0 {
			t.Errorf("%v became %v", tape.data, again.data)
		}
	})
}

// TestShrink expects that only the choices remain that a failure needs.
func TestShrink(t *testing.T) {
	tape := SeedTape(3)
	for range 300 {
		tape.Pick(10)
	}
	fails := func(tape *Tape) bool {
		sevens := 0
		for range 300 {
			if tape.Pick(10) == 7 {
				sevens++
			}
		}
		return sevens >= 2
	}
	if !fails(DataTape(tape.Said())) {
		t.Fatal("the tape does not fail to begin with")
	}
	if got := weight(Shrink(tape.Said(), time.Minute, fails)); got != 2 {
		t.Errorf("%d choices are left that are not 0, want 2", got)
	}
}
