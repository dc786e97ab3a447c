// Command bench measures what the documentation claims about the plugin's performance,
// side by side with the closest equivalent that Caddy has without it, in one run and in
// short alternating rounds, so whatever else the machine does disturbs both sides alike.
// Figures are medians over the rounds, unless stated otherwise.
//
//	go run ./internal/test/bench [-quick] [-only <names>] [-names <n>] [-entries <n>] [-revoked <n>]
//
// It prints one row per claim and exits with code 1 if a claim is missed by more than the
// margin in its row. A quick run judges nothing: it shows that the benchmarks work, on a
// machine that may be busy with other things. The absolute figures depend on the machine;
// the ratios hardly do. It needs the go command and the checkout, to build ./cmd/caddy
// from, and talks to loopback addresses only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench measures some claims that need the same setup.
type bench struct {
	name string
	run  func(ctx context.Context, o options) ([]row, error)
}

var benches = []bench{
	{"file", benchFile},
	{"miss", benchMiss},
	{"site", benchSite},
	{"pending", benchPending}, // not after those that lock files, which leaves goroutines behind for a while
	{"issue", benchIssue},
	{"flood", benchFlood},
	{"publish", benchPublish},
	{"entries", benchEntries},
	{"many", benchMany},
	{"revoked", benchRevoked},
}

// The names of the benches "many" and "revoked", and the entries of the bench "entries".
const (
	manyNames    = 10_000
	quickNames   = 50
	revokedNames = 1_000
	quickRevoked = 20
	manyEntries  = 100_000
	quickEntries = 2_000
)

// options are what a bench needs to know of the command line.
type options struct {
	quick          bool
	names, entries int
	revoked        int
	root           string // of the run; empty means the system's for temporary files
	dir            string // empty, for this bench alone
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
// quick run does not report.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (missed int, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "short rounds, to see that everything works; the figures are rough, and none is judged")
	names := flags.Int("names", manyNames, "how many names the bench \"many\" gets certificates for; a quick run has fewer")
	entries := flags.Int("entries", manyEntries, "how many entries the ledger of the bench \"entries\" has; a quick run has fewer")
	revoked := flags.Int("revoked", revokedNames, "how many names the bench \"revoked\" gets certificates for, a third of a second for each; a quick run has fewer")
	only := flags.String("only", "", "measure only these `names`, separated by commas: "+strings.Join(benchNames(), ", "))
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	if flags.NArg() > 0 {
		return 0, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *names < 1 || *entries < 1 || *revoked < 1 {
		return 0, errors.New("-names, -entries and -revoked must be above 0")
	}
	wanted, err := choose(*only)
	if err != nil {
		return 0, err
	}
	o := options{quick: *quick, names: *names, entries: *entries, revoked: *revoked}
	if o.quick {
		o.names, o.entries, o.revoked = quickNames, quickEntries, quickRevoked
	}
	if o.root, err = os.MkdirTemp("", "caddy-commercial-bench-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.root)) }()
	// testing.Benchmark takes its settings from the flags of go test.
	testing.Init()

	fmt.Fprintf(stdout, "%s %s/%s, %d CPUs\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var rows []row
	var failed error // what was measured before is not lost
	for _, b := range wanted {
		started := time.Now()
		got, err := runOne(ctx, b, o)
		if err != nil {
			failed = fmt.Errorf("%s: %w", b.name, err)
			break
		}
		fmt.Fprintf(stderr, "%s measured in %s\n", b.name, time.Since(started).Round(100*time.Millisecond))
		rows = append(rows, got...)
	}
	if err := errors.Join(failed, printTable(stdout, rows)); err != nil {
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

// choose returns the benches of these names, separated by commas, in the order in which
// they always run; all of them if there are none.
func choose(only string) ([]bench, error) {
	if only == "" {
		return benches, nil
	}
	list := strings.Split(only, ",")
	for _, name := range list {
		if !slices.Contains(benchNames(), name) {
			return nil, fmt.Errorf("unknown bench %q; want one of %s", name, strings.Join(benchNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(benches), func(b bench) bool { return !slices.Contains(list, b.name) }), nil
}

func runOne(ctx context.Context, b bench, o options) (rows []row, err error) {
	if o.dir, err = os.MkdirTemp(o.root, "caddy-commercial-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	return b.run(ctx, o)
}

// build builds a program of this module, once in a run, and returns where it is.
func build(ctx context.Context, o options, pkg string) (string, error) {
	root := o.root
	if root == "" {
		root = o.dir
	}
	path := filepath.Join(root, "bin", filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/caddy-commercial/caddy-commercial/"+pkg) //nolint:gosec // a path of our own
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

func benchNames() []string {
	list := make([]string, 0, len(benches))
	for _, b := range benches {
		list = append(list, b.name)
	}
	return list
}
