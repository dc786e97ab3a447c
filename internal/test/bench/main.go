// Command bench measures what the documentation claims about the plugin's
// performance, side by side with the nearest thing that Caddy has without it, in one
// run and in short alternating rounds, so that whatever else the machine does
// disturbs both sides alike. Figures are medians over the rounds, if not said otherwise.
//
//	go run ./internal/test/bench [-quick] [-only <name>] [-names <n>]
//
// It prints one row per claim and ends with exit code 1 if a claim is missed by more
// than the margin in its row. A quick run judges nothing: it shows that the benchmarks
// work, on a machine that may be busy with other things. The absolute figures depend on
// the machine; the ratios hardly do. It needs the go command and the checkout, to build
// ./cmd/caddy from, and talks to loopback addresses only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench measures some claims that need the same setting.
type bench struct {
	name string
	run  func(ctx context.Context, o options) ([]row, error)
}

var benches = []bench{
	{"file", benchFile},
	{"miss", benchMiss},
	{"site", benchSite},
	{"pending", benchPending}, // not after those that lock files: that leaves goroutines for a while
	{"issue", benchIssue},
	{"flood", benchFlood},
	{"many", benchMany},
}

// The names of the bench "many".
const (
	manyNames  = 10_000
	quickNames = 50
)

// options are what a bench must know of the command line.
type options struct {
	quick bool
	names int
	dir   string // empty, for this bench alone
}

// pick returns the first value, or the second one in a quick run.
func pick[T any](o options, full, quick T) T {
	if o.quick {
		return quick
	}
	return full
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	missed, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case missed > 0:
		fmt.Fprintf(os.Stderr, "bench: claims missed: %d\n", missed)
		os.Exit(1)
	}
}

// run measures and prints. It returns the number of claims that were missed, which a
// quick run does not tell.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (missed int, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "short rounds, to see that everything works; the figures are rough, and none is judged")
	many := flags.Int("names", manyNames, "how many names the bench \"many\" has certificates for; a quick run has fewer")
	only := flags.String("only", "", "measure only `name`: "+strings.Join(names(), ", "))
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	if flags.NArg() > 0 {
		return 0, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *only != "" && !slices.Contains(names(), *only) {
		return 0, fmt.Errorf("there is no %q; there are %s", *only, strings.Join(names(), ", "))
	}
	// testing.Benchmark takes its settings from the flags of go test.
	testing.Init()

	fmt.Fprintf(stdout, "%s %s/%s, %d CPUs\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var rows []row
	for _, b := range benches {
		if *only != "" && b.name != *only {
			continue
		}
		started := time.Now()
		got, err := runOne(ctx, b, options{quick: *quick, names: pick(options{quick: *quick}, *many, quickNames)})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", b.name, err)
		}
		fmt.Fprintf(stderr, "%s measured in %s\n", b.name, time.Since(started).Round(100*time.Millisecond))
		rows = append(rows, got...)
	}
	if err := printTable(stdout, rows); err != nil {
		return 0, err
	}
	if *quick {
		return 0, nil
	}
	for _, r := range rows {
		if r.verdict() == verdictMissed {
			missed++
		}
	}
	return missed, nil
}

func runOne(ctx context.Context, b bench, o options) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "caddy-commercial-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.dir = dir
	return b.run(ctx, o)
}

func names() []string {
	list := make([]string, 0, len(benches))
	for _, b := range benches {
		list = append(list, b.name)
	}
	return list
}
