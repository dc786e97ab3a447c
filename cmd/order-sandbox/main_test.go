package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram is the environment variable that makes the test binary run as the program,
// with its value as arguments.
const asProgram = "ORDER_SANDBOX_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(asProgram); args != "" {
		if err := run(context.Background(), strings.Fields(args), os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// running is a sandbox as its user sees it.
type running struct {
	printed      string
	api, control string
}

// start runs the program until the end of the test, or until stop is called.
func start(t *testing.T, args ...string) (r *running, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"}, args...), in, io.Discard)
		in.CloseWithError(errors.Join(io.EOF, err))
		ended <- err
	}()
	text := make([]byte, 4096)
	n, err := out.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	r = &running{printed: string(text[:n])}
	r.api = r.line(t, `(?m)^(?:racent|digicert|howssl) +(http://[^/\s]+)`)
	r.control = r.line(t, `(?m)^control +(\S+)`)
	return r, stop
}

// line finds a part of what was printed.
func (r *running) line(t *testing.T, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(r.printed)
	if match == nil {
		t.Fatalf("nothing matches %s in\n%s", pattern, r.printed)
	}
	return match[1]
}

func (r *running) call(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.control+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
}

func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is the part of the manual below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(manual(t), "\n"+heading+"\n")
	if !found {
		t.Fatalf("the manual has no %q", heading)
	}
	level := strings.Repeat("#", strings.Count(heading, "#"))
	text, _, _ = strings.Cut(text, "\n"+level+" ")
	text, _, _ = strings.Cut(text, "\n"+level[1:]+" ")
	return text
}

func shell(text string) string {
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		script.WriteString(block[1])
	}
	return script.String()
}

// TestWalks does what the manual tells its reader to do.
func TestWalks(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "openssl", "awk", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the walks of README.md need %s, which is not installed: %v", tool, err)
		}
	}
	setup, _, _ := strings.Cut(section(t, "## Walks"), "\n### ")
	for dialect, wants := range map[string][]string{
		"Racent":   {"COMPLETE", "cert.pem: OK", "the answer is lost", `"reference":"second"`, "Revoked Certificates:"},
		"DigiCert": {`"status":"issued"`, "chain.pem: OK", `"reference":"first"`},
		"HowSSL":   {`"order_status":3`, "cert.pem: OK", `"cents":550`},
	} {
		t.Run(dialect, func(t *testing.T) {
			dir := t.TempDir()
			files := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "www"))))
			defer files.Close()
			port := files.URL[strings.LastIndex(files.URL, ":")+1:]
			r, _ := start(t, "--calm", "--http-port", port)
			script := strings.NewReplacer("http://127.0.0.1:14080", r.api, "http://127.0.0.1:14081", r.control).
				Replace(shell(setup) + shell(section(t, "### "+dialect)))
			cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, r.call(t, "GET", "/fetches", ""))
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
		})
	}
}

// TestManual checks the manual against the flags, calls and faults of the program.
func TestManual(t *testing.T) {
	var usage bytes.Buffer
	if _, err := parse([]string{"--help"}, &usage); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(usage.String(), -1)
	if len(flags) < 15 {
		t.Fatalf("usage %s", usage.String())
	}
	text := section(t, "## Flags")
	for _, f := range flags {
		if !strings.Contains(text, "`--"+f[1]+"`") {
			t.Errorf("the flag %s is not in the manual", f[1])
		}
	}
	r, _ := start(t, "--calm")
	for _, match := range regexp.MustCompile("`((?:GET|POST|PATCH|DELETE) [^`]+)`").FindAllStringSubmatch(section(t, "## The control API"), -1) {
		method, path, _ := strings.Cut(match[1], " ")
		if got := r.call(t, method, strings.Replace(path, "{id}", "77", 1), ""); strings.HasPrefix(got, "405") || got == "404 404 page not found" {
			t.Errorf("%s: %s", match[1], got)
		}
	}
	if got := r.call(t, "POST", "/faults", `{"kind":"x"}`); !strings.HasPrefix(got, "400") {
		t.Error(got)
	} else {
		for _, kind := range regexp.MustCompile(`[a-z-]+`).FindAllString(got[strings.Index(got, "not one of")+len("not one of"):], -1) {
			if !strings.Contains(section(t, "## The control API"), "`"+kind+"`") {
				t.Errorf("the fault %s is not in the manual", kind)
			}
		}
	}
}

func TestWhatIsPrinted(t *testing.T) {
	dir := t.TempDir()
	r, stop := start(t, "--dir", dir, "--tokens", "one,two", "--seed", "77", "--dialects", "racent")
	for _, want := range []string{"token     one,", "token     two,", "-seed 77", filepath.Join(dir, "root.pem")} {
		if !strings.Contains(r.printed, want) {
			t.Errorf("%q is missing in\n%s", want, r.printed)
		}
	}
	if strings.Contains(r.printed, "/Home") {
		t.Errorf("a dialect that is not served is in\n%s", r.printed)
	}
	stop()
	if _, err := os.Stat(filepath.Join(dir, "root.pem")); err != nil {
		t.Error(err)
	}
	r, stop = start(t, "--calm")
	root := r.line(t, `(?m)^root +(\S+)`)
	if _, err := os.Stat(root); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("the directory of one run was left behind: %v", err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range []string{
		"extra", "--tokens ,", "--dialects ,", "--dialects nobody", "--perspectives 0", "--may-miss 6", "--may-miss -1",
		"--year 0s", "--lifetime -1h", "--limit -1", "--limit-per 0s", "--unknown", "--listen nowhere", "--control nowhere", "--tokens a,a", "--resolver dns.example",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := run(ctx, append([]string{"--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"}, strings.Fields(args)...), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: accepted", args)
		}
		cancel()
	}
}
