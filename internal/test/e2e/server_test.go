package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"
)

// server is a running Caddy.
type server struct {
	w *world
	node
	config string
	cmd    *exec.Cmd
	log    logLines
	ended  chan struct{}
	err    error // of the process, after ended
}

// logLines collects what a process writes, line by line.
type logLines struct {
	mu      sync.Mutex
	rest    []byte
	raw     []string
	entries []logEntry
}

// logEntry is one line of Caddy's JSON log.
type logEntry struct {
	Level   string `json:"level"`
	Logger  string `json:"logger"`
	Message string `json:"msg"`
	raw     string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, complete := bytes.Cut(l.rest, []byte("\n"))
		if !complete {
			return len(p), nil
		}
		l.rest = rest
		entry := logEntry{raw: string(line)}
		if json.Unmarshal(line, &entry) == nil {
			l.entries = append(l.entries, entry)
		}
		l.raw = append(l.raw, string(line))
	}
}

func (l *logLines) all() []logEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// with returns up to fifty lines, JSON or not, from the first that contains the text.
func (l *logLines) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.raw, func(line string) bool { return strings.Contains(line, text) })
	if i < 0 {
		return nil
	}
	return slices.Clone(l.raw[i:min(i+50, len(l.raw))])
}

// start runs the world's server with a Caddyfile.
func (w *world) start(caddyfile string) *server { return w.startAt(w.node, caddyfile) }

func (w *world) startAt(n node, caddyfile string) *server {
	w.t.Helper()
	return w.launch(n, "Caddyfile", caddyfile)
}

// launch runs a server with a config in a file of that name, once those before it have
// begun to serve. Caddy makes its local CA without a lock: when two servers do so at the
// same moment on one storage, they read each other's incomplete files, and one of them
// exits.
func (w *world) launch(n node, file, config string) *server {
	w.t.Helper()
	w.mu.Lock()
	before := slices.Clone(w.servers)
	w.mu.Unlock()
	for _, s := range before {
		w.await(s.name+" to serve", func() error {
			if starting := len(s.find("serving initial configuration")) == 0 && s.alive() == nil; starting {
				return errors.New("it is still starting")
			}
			return nil
		})
	}
	s := &server{w: w, node: n, config: filepath.Join(n.home, file), ended: make(chan struct{})}
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	s.cmd = w.command(context.Background(), n, "run", "--config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.servers = append(w.servers, s)
	w.mu.Unlock()
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	return s
}

// command is the binary at a node, with nothing of this process's environment but PATH.
func (w *world) command(ctx context.Context, n node, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Dir = n.home
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + n.home, "XDG_DATA_HOME=" + n.home, "XDG_CONFIG_HOME=" + n.home,
		"E2E_TOKEN=" + apiToken, clockVariable + "=" + n.clock.String(), zerossltest.Variable + "=" + w.zerossl,
		"SSL_CERT_FILE=" + w.roots,
	}
	return cmd
}

// run runs a command of the binary to its end.
func (w *world) run(n node, args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	out, err := w.command(ctx, n, args...).CombinedOutput()
	if strings.Contains(string(out), apiToken) {
		w.t.Errorf("the API token is in the output of caddy %s", args[0])
	}
	return string(out), err
}

// kill ends the process as a power cut would.
func (s *server) kill() {
	// It may have ended already.
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// stop ends the process as a service manager would, and waits for it.
func (s *server) stop() {
	s.w.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.w.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.w.t.Fatalf("%s does not stop", s.name)
	}
	if s.err != nil {
		s.w.t.Errorf("%s ended with %v", s.name, s.err)
	}
}

// alive returns an error if the process has ended.
func (s *server) alive() error {
	select {
	case <-s.ended:
		return finalError{fmt.Errorf("%s has ended: %w", s.name, s.err)}
	default:
		return nil
	}
}

// find returns the entries with the message.
func (s *server) find(message string) []logEntry {
	return slices.DeleteFunc(s.log.all(), func(e logEntry) bool { return e.Message != message })
}

// awaitLog waits for an entry with the message.
func (s *server) awaitLog(message string) logEntry {
	s.w.t.Helper()
	return s.awaitEntry("log message "+message, func(e logEntry) bool { return e.Message == message })
}

func (s *server) awaitEntry(what string, fits func(logEntry) bool) logEntry {
	s.w.t.Helper()
	var found logEntry
	s.w.await(what, func() error {
		entries := s.log.all()
		if i := slices.IndexFunc(entries, fits); i >= 0 {
			found = entries[i]
			return nil
		}
		return cmp.Or(s.alive(), errors.New("not in the log"))
	})
	return found
}

// errors lists the entries of level error and above.
func (s *server) errors() []logEntry {
	return slices.DeleteFunc(s.log.all(), func(e logEntry) bool {
		return e.Level == "debug" || e.Level == "info" || e.Level == "warn"
	})
}

// checkLog fails on what no log may ever show.
func (s *server) checkLog() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for _, line := range s.log.raw {
		for _, bad := range []string{apiToken, "PRIVATE KEY", "panic"} {
			if strings.Contains(line, bad) {
				s.w.t.Errorf("the log of %s has %q: %s", s.name, bad, line)
			}
		}
	}
}

// excerpt is the log without debug lines, at most the last 150 of them.
func (s *server) excerpt() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	lines := slices.DeleteFunc(slices.Clone(s.log.raw), func(line string) bool {
		return strings.Contains(line, `"level":"debug"`)
	})
	return strings.Join(lines[max(0, len(lines)-150):], "\n")
}

// call calls the admin API. Each reload replaces the admin server, and a connection that
// the old one had not answered yet is dropped; so a call is retried a few times. Loading
// a config twice does no more than loading it once.
func (s *server) call(method, path string, header http.Header, body string) (answer string, err error) {
	for range 5 {
		answer, err = s.callOnce(method, path, header, body)
		if dropped := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET); !dropped {
			break
		}
	}
	return answer, err
}

func (s *server) callOnce(method, path string, header http.Header, body string) (string, error) {
	ctx, cancel := context.WithTimeout(s.w.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", s.admin, path), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: status %s: %s", method, path, resp.Status, answer)
	}
	return string(answer), err
}

// load gives the running server a config; force makes it load even the one that it has.
func (s *server) load(caddyfile string, force bool) {
	s.w.t.Helper()
	header := http.Header{"Content-Type": {"text/caddyfile"}}
	if force {
		header.Set("Cache-Control", "must-revalidate")
	}
	if _, err := s.call(http.MethodPost, "/load", header, caddyfile); err != nil {
		s.w.t.Fatalf("reloading %s: %v", s.name, err)
	}
}

// goroutines is how many the process has.
func (s *server) goroutines() int {
	s.w.t.Helper()
	profile, err := s.call(http.MethodGet, "/debug/pprof/goroutine?debug=1", nil, "")
	if err != nil {
		s.w.t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &n); err != nil {
		s.w.t.Fatalf("reading the goroutine profile: %v", err)
	}
	return n
}
