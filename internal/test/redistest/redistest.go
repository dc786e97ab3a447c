// Package redistest runs Redis for tests.
package redistest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long Redis may take to start.
const patience = time.Minute

// Server is a Redis that keeps what is written, even when it is killed.
type Server struct {
	// Addr is its address.
	Addr string

	tb    testing.TB
	args  []string
	log   bytes.Buffer // of the process; read it only when that has ended
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start runs Redis at a loopback address until the end of the test, with its files in an
// empty directory.
func Start(tb testing.TB, addr, dir string) *Server {
	tb.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Addr: addr, tb: tb, args: []string{
		"--bind", host, "--port", port, "--dir", dir, "--daemonize", "no", "--save", "", "--appendonly", "yes",
	}}
	s.Run()
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("log of Redis:\n%s", s.log.String())
		}
	})
	return s
}

// Run starts Redis, again after Kill, and waits until it answers.
func (s *Server) Run() {
	s.tb.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		s.tb.Fatal("this test needs Redis: apt-get install redis-server")
	}
	s.cmd = exec.Command(binary, s.args...) //nolint:gosec,noctx // what a test runs, and ends itself
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func() {
		// How it exits does not matter: it is killed.
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := s.Eval("return 'ready'")
		if err == nil && answer == "ready" {
			return
		}
		select {
		case <-s.ended:
			s.tb.Fatalf("Redis ended:\n%s", s.log.String())
		case <-deadline:
			s.tb.Fatalf("Redis does not answer: %v", err)
		case <-tick.C:
		}
	}
}

// Kill ends Redis as a crash would.
func (s *Server) Kill() {
	// It may have ended already.
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Eval runs a script, which must not contain double quotes and returns a string.
func (s *Server) Eval(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "EVAL \"%s\" 0\r\n", strings.Join(strings.Fields(script), " ")); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	head, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	size, isText := strings.CutPrefix(strings.TrimSpace(head), "$")
	n, err := strconv.Atoi(size)
	if !isText || err != nil || n < 0 {
		return "", errors.New("redis answered " + strings.TrimSpace(head))
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}
