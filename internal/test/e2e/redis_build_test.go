package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// redisBinary is Caddy with a storage in Redis; see rediscaddy.
func redisBinary(t *testing.T) string {
	t.Helper()
	return built(t, &redisBuild)
}

// shiftedBinary is the same with a wall clock that clockVariable sets.
func shiftedBinary(t *testing.T) string {
	t.Helper()
	return built(t, &shiftedBuild)
}

// clockVariable is the environment variable that says how far the wall clock of a shifted
// binary is ahead, as a duration.
const clockVariable = "E2E_CLOCK"

// build is a binary that is built when a test first needs it.
type build struct {
	name  string
	flags func(dir string) ([]string, error)
	once  sync.Once
	file  string
	err   error
}

var (
	redisBuild   = build{name: "rediscaddy", flags: func(string) ([]string, error) { return nil, nil }}
	shiftedBuild = build{name: "shiftedcaddy", flags: shiftClock}
)

func built(t *testing.T, b *build) string {
	t.Helper()
	b.once.Do(func() {
		dir := filepath.Join(filepath.Dir(caddyBinary), b.name)
		if b.err = os.MkdirAll(dir, 0o700); b.err != nil {
			return
		}
		flags, err := b.flags(dir)
		if err != nil {
			b.err = err
			return
		}
		b.file = filepath.Join(dir, "caddy")
		cmd := exec.Command("go", append(append([]string{"build", "-o", b.file}, flags...), ".")...)
		cmd.Dir = "rediscaddy" // a module of its own
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = &buildError{err, string(out)}
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.file
}

type buildError struct {
	error
	output string
}

func (e *buildError) Error() string {
	return "building rediscaddy: " + e.error.Error() + "\n" + e.output
}

// Production code has no setting for the wall clock, and needs none: the shifted binary
// has another time.Now. Monotonic clocks and timers stay as they are, as on a machine
// whose clock is wrong.
const (
	nowBegins = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowShifts = nowBegins + "\tsec += e2eShift\n"
	shiftFile = `package time

import "syscall"

var e2eShift = func() int64 {
	text, _ := syscall.Getenv("` + clockVariable + `")
	shift, err := ParseDuration(text)
	if err != nil {
		panic("` + clockVariable + `: " + err.Error())
	}
	return int64(shift / Second)
}()
`
)

// shiftClock makes the flags of a build in which package time has a shifted clock.
func shiftClock(dir string) ([]string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	own, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return nil, err
	}
	if strings.Count(string(own), nowBegins) != 1 {
		return nil, &buildError{os.ErrInvalid, "time.Now does not begin as expected:\n" + nowBegins}
	}
	replaced := make(map[string]string)
	for file, text := range map[string]string{
		"time.go": strings.Replace(string(own), nowBegins, nowShifts, 1), "e2e_shift.go": shiftFile,
	} {
		replaced[filepath.Join(folder, file)] = filepath.Join(dir, file)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "overlay.json")
	return []string{"-overlay", file}, os.WriteFile(file, overlay, 0o600)
}
