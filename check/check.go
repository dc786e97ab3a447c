// Package check finds out before an order what would keep the CA from validating it, or the
// vendor from taking it. Checks run in parallel where they can; each ends with a verdict and
// says what to do. Nothing here buys anything.
package check

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Verdict is what a check makes of what it has seen.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // worth a look; the order may succeed all the same
	Stop    Verdict = "stop"    // an order would be money and days lost
)

// Result is what one check says.
type Result struct {
	Check   string        `json:"check"`
	Name    string        `json:"name,omitempty"` // what it is about, a host name mostly
	Verdict Verdict       `json:"verdict"`
	Message string        `json:"message"`
	Advice  string        `json:"advice,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// Task is a check to be done.
type Task struct {
	Check string
	Name  string

	// Do looks. What it returns gets the task's check and name where it has none. It should
	// end when its context does.
	Do func(ctx context.Context) []Result
}

// atOnce is how many tasks are done at once. A config may have hundreds of names.
const atOnce = 64

// Run does all tasks within the time, and returns all that they say in the order of the tasks.
// A task that is not done by then is a warning.
func Run(ctx context.Context, within time.Duration, tasks []Task) []Result {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	found := make([][]Result, len(tasks))
	var mu sync.Mutex // guards found
	over := false
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, task := range tasks {
		group.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			results := task.do(ctx)
			mu.Lock()
			defer mu.Unlock()
			if !over {
				found[i] = results
			}
		})
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		// What keeps to the time is about to return.
		grace := time.NewTimer(grace)
		defer grace.Stop()
		select {
		case <-done:
		case <-grace.C:
		}
	}
	mu.Lock()
	defer mu.Unlock()
	over = true
	var all []Result
	for i, task := range tasks {
		if found[i] == nil {
			found[i] = []Result{{Check: task.Check, Name: task.Name, Verdict: Warning, Took: within,
				Message: fmt.Sprintf("not finished within %s", within), Advice: "run the check again, or give it more time with --timeout"}}
		}
		all = append(all, found[i]...)
	}
	return all
}

// grace is how long after the end of the time tasks may take to say what they know.
const grace = 200 * time.Millisecond

func (t Task) do(ctx context.Context) []Result {
	began := time.Now()
	results := t.look(ctx)
	took := time.Since(began).Round(time.Millisecond)
	for i := range results {
		r := &results[i]
		r.Check, r.Name, r.Took = cmp.Or(r.Check, t.Check), cmp.Or(r.Name, t.Name), took
	}
	if results == nil {
		results = []Result{}
	}
	return results
}

// look does the task. A panic is a result, or else what other tasks have begun would be left behind.
func (t Task) look(ctx context.Context) (results []Result) {
	defer func() {
		if v := recover(); v != nil {
			results = []Result{warning("report this, with the stack", "the check panicked: %v\n%s", v, debug.Stack())}
		}
	}()
	return t.Do(ctx)
}

// Stops reports whether any result stops an order.
func Stops(results []Result) bool {
	return slices.ContainsFunc(results, func(r Result) bool { return r.Verdict == Stop })
}

func ok(format string, args ...any) Result {
	return Result{Verdict: OK, Message: fmt.Sprintf(format, args...)}
}

func warning(advice, format string, args ...any) Result {
	return Result{Verdict: Warning, Message: fmt.Sprintf(format, args...), Advice: advice}
}

func stop(advice, format string, args ...any) Result {
	return Result{Verdict: Stop, Message: fmt.Sprintf(format, args...), Advice: advice}
}
