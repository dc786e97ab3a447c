// Command order-sandbox is a commercial certificate authority for testing clients, in any
// language: what Pebble is for ACME, for the order APIs of Racent, DigiCert and HowSSL.
// It charges accounts, really fetches validation files, and really signs, with a root
// that nobody trusts. By default it behaves like the real ones on an ordinary day, which
// is to say not always well. The README.md next to this file is its manual.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/control"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "order-sandbox:", err)
		os.Exit(1)
	}
}

// run serves until the context ends. Once everything is served, it prints to out what a
// user needs to know; logs and usage go to logs.
func run(ctx context.Context, args []string, out, logs io.Writer) error {
	o, err := parse(args, logs)
	if err != nil {
		return err
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	dir, clean, err := workDir(o.dir)
	if err != nil {
		return err
	}
	defer clean()

	clock := new(control.Clock)
	cfg.Dir, cfg.Now, cfg.Logger = dir, clock.Now, newLogger(logs, o.verbose)
	ca, err := hostile.New(cfg)
	if err != nil {
		return err
	}
	defer ca.Close()
	ca.SetLimit(o.limit)
	if !o.calm {
		ca.SetSource(fault.Mild(o.seed))
	}

	api, err := serve(ctx, o.listen, ca)
	if err != nil {
		return err
	}
	defer api.close()
	if err := ca.Update(func(cfg *hostile.Config) { cfg.CRLURL = api.url + sandboxca.CRLPath }); err != nil {
		return err
	}
	admin, err := serve(ctx, o.control, control.New(ca, clock, o.seed))
	if err != nil {
		return err
	}
	defer admin.close()
	o.announce(out, api.url, admin.url, filepath.Join(dir, "root.pem"))
	<-ctx.Done()
	return nil
}

// workDir is the directory of the CA: the given one, or one for this run only.
func workDir(dir string) (path string, clean func(), err error) {
	if dir != "" {
		path, err = filepath.Abs(dir)
		return path, func() {}, err
	}
	path, err = os.MkdirTemp("", "order-sandbox-")
	return path, func() { _ = os.RemoveAll(path) }, err
}

// newLogger writes lines for people to read.
func newLogger(w io.Writer, verbose bool) *zap.Logger {
	level := zapcore.WarnLevel
	if verbose {
		level = zapcore.DebugLevel
	}
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level))
}

// server is an HTTP server on a port.
type server struct {
	url    string
	server *http.Server
	done   chan struct{}
}

func serve(ctx context.Context, address string, handler http.Handler) (*server, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &server{
		url:    "http://" + ln.Addr().String(),
		server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(ln) // always ends with the error of being closed
	}()
	return s, nil
}

func (s *server) close() {
	_ = s.server.Close() // fails only in closing the listener, where nothing can be lost
	<-s.done
}
