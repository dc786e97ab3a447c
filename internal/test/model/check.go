package model

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	flagCount  = flag.Int("model.n", 0, "how many histories of each kind the model test runs; 0 means the test's own number")
	flagSeed   = flag.Uint64("model.seed", 1, "the seed of the model test's first history")
	flagTape   = flag.String("model.tape", "", "run one history of the model test from this tape, or from seed:N")
	flagKind   = flag.String("model.kind", "", "run only this kind of world of the model test")
	flagTrace  = flag.Bool("model.trace", false, "print the histories of the model test that are replayed, and those that fail and cannot be repeated")
	flagShrink = flag.Duration("model.shrink", 30*time.Second, "how long the model test shrinks a history that failed")
	flagNames  = flag.Bool("model.names", false, "print each history's seed before it runs, to find one that crashes the program")
)

// Stats is what all histories did together.
type Stats struct {
	Histories, Events, Operations, Charges, Reissues, Persons, Acts, Lives int
	Elapsed                                                                time.Duration
}

func (s *Stats) add(r Result) {
	s.Histories++
	s.Events += r.Events
	s.Operations += r.Operations
	s.Charges += r.Charges
	s.Reissues += r.Reissues
	s.Persons += r.Persons
	s.Acts += r.Acts
	s.Lives += r.Lives
}

func (s Stats) String() string {
	n := max(1, s.Histories)
	return fmt.Sprintf("%d histories in %.1f s (%.2f ms each): %d events, %d operations, %d charges, %d reissues, %d resolved by a person, %d acts in the office, %d processes",
		s.Histories, s.Elapsed.Seconds(), float64(s.Elapsed.Milliseconds())/float64(n), s.Events, s.Operations, s.Charges, s.Reissues, s.Persons, s.Acts, s.Lives)
}

// Failure is a history that broke a rule.
type Failure struct {
	Kind      Kind
	Seed      uint64
	Violation *Violation
	Choices   []uint16
	Lines     []string // with -model.trace
}

// workers is how many histories run side by side.
const workers = 2

// Find runs up to n histories of the kind, and returns those that broke a rule, up to
// limit of them, 0 for all.
func Find(t *testing.T, n, limit int, kind Kind, system Factory) (Stats, []Failure) {
	t.Helper()
	var (
		mu     sync.Mutex
		stats  Stats
		failed []Failure
		next   = *flagSeed
		begin  = time.Now()
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || limit > 0 && len(failed) >= limit {
			return 0, false
		}
		n--
		next++
		return next - 1, true
	}
	t.Run(kind.Name, func(t *testing.T) {
		for i := range workers {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for seed, ok := take(); ok; seed, ok = take() {
					if *flagNames {
						fmt.Printf("-model.kind=%s -model.tape=seed:%d\n", kind.Name, seed)
					}
					var lines []string
					var trace func(string)
					if *flagTrace {
						trace = func(line string) { lines = append(lines, line) }
					}
					r := History(t, SeedTape(seed), kind.Params, system, trace)
					mu.Lock()
					stats.add(r)
					if r.Violation != nil {
						failed = append(failed, Failure{kind, seed, r.Violation, r.Choices, lines})
					}
					mu.Unlock()
				}
			})
		}
	})
	stats.Elapsed = time.Since(begin)
	return stats, failed
}

// Check runs n histories of each kind, and fails for the first one that breaks a rule,
// with a small history that breaks the same one. The flags replace its numbers.
func Check(t *testing.T, n int, kinds []Kind, system Factory) {
	t.Helper()
	if *flagCount > 0 {
		n = *flagCount
	}
	known := false
	for _, kind := range kinds {
		if *flagKind != "" && kind.Name != *flagKind {
			continue
		}
		known = true
		if *flagTape != "" {
			Replay(t, *flagTape, kind, system)
			return
		}
		stats, failed := Find(t, n, 1, kind, system)
		t.Logf("%s: %s", kind.Name, stats)
		if len(failed) > 0 {
			report(t, failed[0], system)
			return
		}
	}
	if !known {
		t.Fatalf("unknown kind %q", *flagKind)
	}
}

// Replay runs the history of a tape once more.
func Replay(t *testing.T, text string, kind Kind, system Factory) Result {
	t.Helper()
	tape, err := ParseTape(text)
	if err != nil {
		t.Fatal(err)
	}
	var trace func(string)
	if *flagTrace {
		trace = func(line string) { fmt.Println(line) }
	}
	r := History(t, tape, kind.Params, system, trace)
	if r.Violation != nil {
		t.Error(r.Violation)
	}
	return r
}

// report shrinks a failure and says how to repeat it.
func report(t *testing.T, f Failure, system Factory) {
	t.Helper()
	again := func(tape fmt.Stringer) string {
		return fmt.Sprintf("-run '^%s$' -model.kind=%s -model.trace -model.tape=%s", strings.ReplaceAll(t.Name(), "/", "$/^"), f.Kind.Name, tape)
	}
	t.Errorf("%s: seed %d: %s", f.Kind.Name, f.Seed, f.Violation)
	small, tries := f.Choices, 0
	if *flagShrink > 0 {
		small = Shrink(f.Choices, *flagShrink, func(tape *Tape) bool {
			tries++
			r := History(t, tape, f.Kind.Params, system, nil)
			return r.Violation != nil && r.Violation.Kind == f.Violation.Kind
		})
	}
	tape := DataTape(small)
	var lines []string
	r := History(t, tape, f.Kind.Params, system, func(line string) { lines = append(lines, line) })
	if r.Violation == nil || r.Violation.Kind != f.Violation.Kind {
		t.Errorf("the history cannot be repeated: the system makes random choices\nrepeat it with: go test %s", again(SeedName(f.Seed)))
		if len(f.Lines) > 0 {
			t.Log(strings.Join(f.Lines, "\n"))
		}
		return
	}
	const most = 200
	if len(lines) > most {
		lines = append([]string{fmt.Sprintf("(%d lines before)", len(lines)-most)}, lines[len(lines)-most:]...)
	}
	t.Logf("shrunk in %d tries to %d choices that are not 0: %s\n%s\nrepeat it with: go test %s",
		tries, weight(small), r.Violation, strings.Join(lines, "\n"), again(tape))
}

// SeedName is the name of a random tape, for ParseTape.
type SeedName uint64

func (s SeedName) String() string { return fmt.Sprintf("seed:%d", uint64(s)) }
