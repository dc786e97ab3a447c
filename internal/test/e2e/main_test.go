package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// caddyBinary is the file that TestMain built.
var caddyBinary string

// worldsAtOnce is how many tests run side by side. Their servers spend most of their time
// waiting for a dead one's locks to go stale, so the number of cores does not matter.
const worldsAtOnce = 16

// onRedis is whether the clusters on Redis run, too. They take minutes and need redis-server.
var onRedis = flag.Bool("redis", false, "run the clusters on Redis, which need redis-server")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if p := flag.Lookup("test.parallel"); p != nil {
		if n, err := strconv.Atoi(p.Value.String()); err == nil && n < worldsAtOnce {
			if err := flag.Set("test.parallel", strconv.Itoa(worldsAtOnce)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	caddyBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", caddyBinary, "./testcaddy")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary under test: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}
