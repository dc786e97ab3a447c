package fault

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestMild counts what happens to ten thousand calls, twice with one seed and once with
// another.
func TestMild(t *testing.T) {
	type happened struct {
		Phase Phase
		Fault Fault
	}
	record := func(seed uint64) (list []happened, shares map[FaultKind]int) {
		source, shares := Mild(seed), make(map[FaultKind]int)
		for n := uint64(1); n <= 10_000; n++ {
			hits := 0
			for _, phase := range []Phase{BeforeEffect, AfterEffect} {
				if f, ok := source(n, phase); ok {
					list = append(list, happened{phase, f})
					shares[f.Kind]++
					hits++
				}
			}
			if hits != 1 {
				t.Fatalf("%d faults at call %d", hits, n)
			}
		}
		return list, shares
	}
	first, shares := record(7)
	if again, _ := record(7); !reflect.DeepEqual(first, again) {
		t.Error("the same seed led to other faults")
	}
	if other, _ := record(8); reflect.DeepEqual(first, other) {
		t.Error("another seed led to the same faults")
	}
	for kind, want := range map[FaultKind]int{Delay: 500, HTTPStatus: 300, Reset: 100, HTML: 100, Strange: 9000} {
		if got := shares[kind]; got < want*8/10 || got > want*12/10 {
			t.Errorf("kind %d: %d of 10000, want about %d", kind, got, want)
		}
	}
	for _, h := range first {
		switch h.Fault.Kind {
		case Delay:
			if h.Phase != BeforeEffect || h.Fault.Delay < 500*time.Millisecond || h.Fault.Delay > 3*time.Second {
				t.Fatalf("%+v", h)
			}
		case HTTPStatus: // nothing was done: it may be repeated
			if h.Phase != BeforeEffect {
				t.Fatalf("%+v", h)
			}
		default:
			if h.Phase != AfterEffect {
				t.Fatalf("%+v", h)
			}
		}
	}
}

func TestLimit(t *testing.T) {
	limit := Limit{Calls: 3, Per: 5 * time.Second, Block: 10 * time.Second}
	w, start := new(window), time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	for _, call := range []struct {
		at   time.Duration
		over bool
	}{
		{0, false},
		{time.Second, false},
		{2 * time.Second, false},
		{5 * time.Second, false}, // the first one is forgotten
		{5500 * time.Millisecond, true},
		{15 * time.Second, true}, // refused calls do not count, but nothing passes for ten seconds
		{15500 * time.Millisecond, false},
	} {
		if got := w.over(limit, start.Add(call.at)); got != call.over {
			t.Errorf("after %s: over %v, want %v", call.at, got, call.over)
		}
	}
}

func TestShuffle(t *testing.T) {
	body := []byte(`{"a":1,"b":[{"x":null,"y":"\u003c\"","z":4300000000123456789},2.50],"c":{"d":true,"e":{},"f":[]}}`)
	var want any
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	orders := make(map[string]bool)
	for seed := range uint64(50) {
		got := Shuffle(body, seed)
		var same any
		if err := json.Unmarshal(got, &same); err != nil || !reflect.DeepEqual(same, want) {
			t.Fatalf("%s: %v", got, err)
		}
		if string(Shuffle(body, seed)) != string(got) {
			t.Error("the same seed led to another order")
		}
		orders[string(got)] = true
	}
	if len(orders) < 20 {
		t.Errorf("%d orders of the fields", len(orders))
	}
	for _, text := range []string{"", "<html>", `{"a":1} more`, `{"a":`} {
		if got := Shuffle([]byte(text), 1); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
