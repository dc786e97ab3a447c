package dcv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// ListenError tells why validation files cannot be served on an address.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string {
	hint := "check the address"
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		hint = "if a site of this Caddy owns the port, add the dcv directive to it; " +
			"if another program does, have it pass " + PathPrefix + " on to Caddy"
	case errors.Is(e.Err, fs.ErrPermission):
		hint = "allow Caddy to bind to low ports, or forward the port to a high one and set http_port"
	}
	return fmt.Sprintf("serving validation files on %s: %v; %s", e.Addr, e.Err, hint)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Serve listens on addr, a "host:port" with an optional host, and serves the live
// challenges there until release is called; all other requests get a 404. It is
// for configs in which Caddy does not listen on the HTTP port. Users of one
// address, of whatever order and config, share the listener, and the last one to
// release it closes it. Release does not depend on ctx, which only bounds the
// attempt to listen.
//
// The listener does not share its port with Caddy's, unlike Caddy's with each
// other, because the kernel would deal out the connections between them at random.
// So that a config that wants the port can be loaded, the listener steps aside
// when one is provisioned and comes back if the port is still free a while later.
//
// A failure to listen is a *ListenError.
func Serve(ctx context.Context, addr string, logger *zap.Logger) (release func(), err error) {
	return temporary.serve(ctx, addr, logger)
}

// yieldTime is how long a listener steps aside. It must outlast the provisioning
// of a config.
const yieldTime = 30 * time.Second

// temporary holds the listeners of this process.
var temporary = &listeners{open: make(map[string]*listener)}

type listeners struct {
	mu   sync.Mutex
	open map[string]*listener // by address
}

type listener struct {
	addr   string
	port   int
	logger *zap.Logger
	users  int
	server *http.Server  // nil while stepped aside
	served chan struct{} // closed when the server has ended
	back   *time.Timer   // set while stepped aside
}

func (ls *listeners) serve(ctx context.Context, addr string, logger *zap.Logger) (func(), error) {
	if logger == nil {
		logger = zap.NewNop()
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.open[addr]
	if l == nil {
		l = &listener{addr: addr, logger: logger}
	}
	if l.server == nil {
		if err := l.listen(ctx); err != nil {
			return nil, &ListenError{Addr: addr, Err: err}
		}
	}
	ls.open[addr] = l
	l.users++
	return sync.OnceFunc(func() { ls.release(l) }), nil
}

func (ls *listeners) release(l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.users--; l.users > 0 {
		return
	}
	delete(ls.open, l.addr)
	l.close()
}

// yield closes the listeners whose port is wanted.
func (ls *listeners) yield(wanted func(port int) bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open {
		if l.server == nil || !wanted(l.port) {
			continue
		}
		l.close()
		l.logger.Info("leaving the port to the new config", zap.String("address", l.addr))
		ls.comeBackLater(l)
	}
}

func (ls *listeners) comeBackLater(l *listener) {
	l.back = time.AfterFunc(yieldTime, func() { ls.comeBack(l) })
}

func (ls *listeners) comeBack(l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.users == 0 || l.server != nil {
		return
	}
	if err := l.listen(context.Background()); err != nil {
		ls.comeBackLater(l)
	}
}

func (l *listener) listen(ctx context.Context) error {
	var config net.ListenConfig
	ln, err := config.Listen(ctx, "tcp", l.addr)
	if err != nil {
		return err
	}
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		l.port = tcp.Port
	}
	if l.back != nil {
		l.back.Stop()
		l.back = nil
	}
	handler := &Handler{logger: l.logger}
	notFound := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		http.Error(w, "no such validation file", http.StatusNotFound)
		return nil
	})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// An error means that the visitor has gone away.
			_ = handler.ServeHTTP(w, r, notFound)
		}),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   10 * time.Second,
		MaxHeaderBytes: 16 << 10, // as Caddy's servers have it
		ErrorLog:       zap.NewStdLog(zap.NewNop()),
	}
	// The port must be free again as soon as the last challenge is over.
	server.SetKeepAlivesEnabled(false)
	served := make(chan struct{})
	l.server, l.served = server, served
	l.logger.Info("listening for validation requests", zap.String("address", ln.Addr().String()))
	go func() {
		defer close(served)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.logger.Error("serving validation files", zap.String("address", l.addr), zap.Error(err))
		}
	}()
	return nil
}

// close ends the server, giving running answers a moment.
func (l *listener) close() {
	if l.back != nil {
		l.back.Stop()
		l.back = nil
	}
	if l.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		_ = l.server.Close()
	}
	<-l.served
	l.server = nil
}
