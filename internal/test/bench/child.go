package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a process that the benchmark has started, with its output.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

func start(ctx context.Context, home string, env []string, binary string, args ...string) (*child, error) {
	c := &child{ended: make(chan struct{})}
	c.cmd = exec.CommandContext(ctx, binary, args...) //nolint:gosec // paths of our own
	c.cmd.Dir, c.cmd.Env = home, env
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // see the state of the process
		close(c.ended)
	}()
	return c, nil
}

// Write implements io.Writer.
func (c *child) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.output.Write(p)
}

func (c *child) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.output.String()
}

// tail is the end of its output.
func (c *child) tail() string {
	text := c.text()
	return text[max(len(text)-4000, 0):]
}

// said counts the lines of its output that contain the words.
func (c *child) said(words string) int {
	n := 0
	for line := range strings.Lines(c.text()) {
		if strings.Contains(line, words) {
			n++
		}
	}
	return n
}

// firstLine waits for the first line of its output.
func (c *child) firstLine(ctx context.Context) (string, error) {
	for {
		if line, _, ok := strings.Cut(c.text(), "\n"); ok {
			return line, nil
		}
		if err := c.sleep(ctx, 10*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// sleep waits, unless the process ends.
func (c *child) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.ended:
		return fmt.Errorf("%s exited unexpectedly (%s)\n%s", filepath.Base(c.cmd.Path), c.cmd.ProcessState, c.tail())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The process is at rest when it has used less than a fiftieth of a processor for a
// while. That is longer than it takes until all names are checked for the first time.
const (
	restLength = 4 * time.Second
	restShare  = 50
)

// settle waits until the process has nothing to do.
func (c *child) settle(ctx context.Context, length time.Duration) error {
	for range 30 {
		before, err := c.usage()
		if err != nil {
			return err
		}
		if err := c.sleep(ctx, length); err != nil {
			return err
		}
		after, err := c.usage()
		if err != nil {
			return err
		}
		if after.cpu-before.cpu <= length/restShare {
			return nil
		}
	}
	return nil // it is never quite at rest
}

// clockTick is the unit of times in /proc, which is the same on every Linux.
const clockTick = 10 * time.Millisecond

// used is what a process has used.
type used struct {
	cpu       time.Duration
	rss, peak int64 // memory that it occupies, and the most that it has ever occupied; bytes
}

// usage returns what the process has used so far.
func (c *child) usage() (u used, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return u, err
	}
	// The name of the command, in parentheses, may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("%q is not the status of a process", stat)
	}
	for _, field := range fields[11:13] { // user and system
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * clockTick
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmHWM": &u.peak, "VmRSS": &u.rss}[name]
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return u, err
		}
		*into = kib * 1024
	}
	if u.peak == 0 || u.rss == 0 {
		return u, errors.New("the status of the process does not show its memory")
	}
	return u, nil
}

// stop ends the process and waits for it.
func (c *child) stop() error {
	select {
	case <-c.ended:
		return nil // whoever needed it got an error
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.ended
	return nil
}

// kill ends a process that has nothing to lose.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.ended
}

// visits are handshakes and plain requests, and how long each took. None waits for the
// one before it: a slow server is visited as often.
type visits struct {
	cancel               context.CancelFunc
	done                 sync.WaitGroup
	handshakes, requests *visitors
}

// visitEvery is the time between two handshakes, and between two requests.
const visitEvery = 50 * time.Millisecond

func visit(ctx context.Context, tlsPort, plainPort int) *visits {
	coming, cancel := context.WithCancel(ctx)
	v := &visits{
		cancel:     cancel,
		handshakes: &visitors{visit: func() error { return handshake(ctx, tlsPort) }},
		requests:   &visitors{visit: func() error { return askPlain(ctx, plainPort) }},
	}
	v.done.Go(func() { v.handshakes.come(coming) })
	v.done.Go(func() { v.requests.come(coming) })
	return v
}

// visitors all do the same.
type visitors struct {
	visit func() error

	mu     sync.Mutex
	took   []time.Duration
	failed int // since the server answered for the first time
}

// come sends one visitor after the other until the context ends, and waits for all of
// them.
func (v *visitors) come(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for tick := time.NewTicker(visitEvery); ; {
		all.Go(func() {
			started := time.Now()
			err := v.visit()
			took := time.Since(started)
			v.mu.Lock()
			defer v.mu.Unlock()
			switch {
			case err == nil:
				v.took = append(v.took, took)
			case len(v.took) > 0:
				v.failed++
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

func handshake(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: helloHost, InsecureSkipVerify: true}} //nolint:gosec // of a CA that nobody trusts
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

func askPlain(ctx context.Context, port int) error {
	c, err := dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer c.close()
	return c.wantBody(helloHost, "/", hello)
}

// visited is what the visits found: medians, how many there were of each kind, and how
// many failed in all.
type visited struct {
	count, failed      int
	handshake, request time.Duration
}

// end ends the visits and returns what they found.
func (v *visits) end() visited {
	v.cancel()
	v.done.Wait()
	return visited{
		count: max(len(v.handshakes.took), len(v.requests.took)), failed: v.handshakes.failed + v.requests.failed,
		handshake: medianOf(v.handshakes.took), request: medianOf(v.requests.took),
	}
}

func medianOf(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}
