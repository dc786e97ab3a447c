package dcv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// ListenError tells why validation files cannot be served on an address. It need not
// be the end: what the CA asks for may reach Caddy in another way.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string {
	hint := "check the address"
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		hint = "have the program that owns the port pass " + PathPrefix + " on to Caddy"
	case errors.Is(e.Err, fs.ErrPermission):
		hint = "allow Caddy to bind to low ports, or forward the port to a high one and set http_port"
	}
	return fmt.Sprintf("serving validation files on %s: %v; %s", e.Addr, e.Err, hint)
}

func (e *ListenError) Unwrap() error { return e.Err }

const (
	// retryInterval is the time between two attempts to listen on a port that is taken.
	// certmagic's ACME solver may hold it for a few seconds.
	retryInterval = 250 * time.Millisecond

	// retryPatience is how long Listen waits for a port that is taken.
	retryPatience = 2 * time.Second

	// lingerTime is how long a listener stays open without users, when the next config
	// is likely to want it again.
	lingerTime = 10 * time.Second
)

// temporary holds the listeners of this process. They outlive configs.
var temporary = &listeners{open: make(map[string]*listener)}

type listeners struct {
	mu   sync.Mutex
	open map[string]*listener // by address
}

// listener is a temporary listener on one address. Its fields are guarded by the mutex
// of listeners.
type listener struct {
	addr   string
	host   string // IP address, empty for all
	port   int
	logger *zap.Logger
	users  int

	socket net.Listener  // nil while the port is taken
	ready  chan struct{} // closed when there is a socket
	retry  *time.Timer   // set while the port is taken
	linger *time.Timer   // set without users
	stand  *stand
}

// Lease is one user's share in a temporary listener.
type Lease struct {
	listeners *listeners
	listener  *listener
	once      sync.Once
}

// Listen serves the live challenges on an address until the lease is given back. It is
// for addresses that no server of Caddy serves, see [Front.Serves]; host is one that
// [ResolveBind] returned. All users of an address share one listener, of whatever order
// and config. Front is that of the newest config, which answers for ACME challenges.
//
// The socket is opened as Caddy opens its own, so that any later config can bind to the
// same address. While both are open the kernel deals the connections between them. What
// is not a validation file is therefore held until [HandOver] tells which server it is
// for; if no other socket is there, it gets a 404.
//
// The lease is never nil. With a *ListenError nothing is served for the time being; if
// the port is taken, listening is tried again until the lease is given back.
func Listen(ctx context.Context, front *Front, host string, port int, logger *zap.Logger) (*Lease, error) {
	return temporary.listen(ctx, front, host, port, logger)
}

func (ls *listeners) listen(ctx context.Context, front *Front, host string, port int, logger *zap.Logger) (*Lease, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	ls.mu.Lock()
	l := ls.open[addr]
	if l == nil {
		l = &listener{addr: addr, host: host, port: port, logger: logger, ready: make(chan struct{})}
		l.stand = newStand(l)
		ls.open[addr] = l
	}
	lease := ls.use(l)
	l.stand.front.Store(front)
	var err error
	if l.socket == nil {
		err = ls.try(ctx, l)
	}
	ls.mu.Unlock()

	if errors.Is(err, syscall.EADDRINUSE) {
		ctx, cancel := context.WithTimeout(ctx, retryPatience)
		defer cancel()
		select {
		case <-l.ready:
			return lease, nil
		case <-ctx.Done():
		}
	}
	if err != nil {
		return lease, &ListenError{Addr: addr, Err: err}
	}
	return lease, nil
}

// use adds a user.
func (ls *listeners) use(l *listener) *Lease {
	l.users++
	if l.linger != nil {
		l.linger.Stop()
		l.linger = nil
	}
	return &Lease{listeners: ls, listener: l}
}

// try opens the socket, or sees to it that this is tried again.
func (ls *listeners) try(ctx context.Context, l *listener) error {
	socket, err := openShared(ctx, l.stand.front.Load(), l.host, l.port)
	switch {
	case err == nil:
		l.socket = socket
		if l.retry != nil { // another user was quicker
			l.retry.Stop()
			l.retry = nil
		}
		close(l.ready)
		l.logger.Info("listening for validation requests", zap.String("address", socket.Addr().String()))
		l.stand.serve(socket)
	case errors.Is(err, syscall.EADDRINUSE) && l.retry == nil:
		l.retry = time.AfterFunc(retryInterval, func() { ls.tryAgain(l) })
	}
	return err
}

func (ls *listeners) tryAgain(l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.retry == nil || ls.open[l.addr] != l {
		return
	}
	l.retry = nil
	if err := ls.try(context.Background(), l); err != nil && l.retry == nil {
		l.logger.Warn("listening for validation requests failed", zap.Error(&ListenError{Addr: l.addr, Err: err}))
	}
}

// openShared listens as Caddy does, which lets later configs listen, too. Where Caddy
// has no socket on the port, it first tries to listen without sharing, which fails if
// another program has the port: the connections of that program must not be dealt to us.
func openShared(ctx context.Context, front *Front, host string, port int) (net.Listener, error) {
	addr := caddy.NetworkAddress{Network: "tcp", Host: host, StartPort: uint(port), EndPort: uint(port)}
	if !front.hasPort(port) && sharers(host, port) == 0 {
		var config net.ListenConfig
		alone, err := config.Listen(ctx, addr.Network, addr.JoinHostPort(0))
		if err != nil {
			return nil, err
		}
		if err := alone.Close(); err != nil {
			return nil, err
		}
	}
	ln, err := addr.Listen(ctx, 0, net.ListenConfig{})
	if err != nil {
		return nil, err
	}
	socket, ok := ln.(net.Listener)
	if !ok {
		return nil, fmt.Errorf("network %s gives a %T", addr.Network, ln)
	}
	return socket, nil
}

// sharers is how many sockets of this process get, or would get, connections to the
// address. Caddy counts them by address as it is written: "all addresses" is "", 0.0.0.0
// or ::, on several networks, but the same to the kernel.
func sharers(host string, port int) int {
	hosts := []string{"", "0.0.0.0", "::"}
	if host != "" {
		hosts = append(hosts, host)
	}
	n := 0
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		for _, h := range hosts {
			n += caddy.ListenerUsage(network, net.JoinHostPort(h, strconv.Itoa(port)))
		}
	}
	return n
}

// Release gives the lease back. The last one closes the listener. Further calls do
// nothing.
func (l *Lease) Release() { l.end(0) }

// Leave gives the lease back at the end of a config. The last one leaves the listener
// open for a moment, because the next config goes on with the order and will want it.
// Further calls do nothing, nor does one after Release.
func (l *Lease) Leave() { l.end(lingerTime) }

func (l *Lease) end(linger time.Duration) {
	l.once.Do(func() {
		ls := l.listeners
		ls.mu.Lock()
		defer ls.mu.Unlock()
		ls.leave(l.listener, linger)
	})
}

func (ls *listeners) leave(l *listener, linger time.Duration) {
	if l.users--; l.users > 0 || ls.open[l.addr] != l {
		return
	}
	if linger == 0 && l.stand.shared() {
		// A config is being loaded that will take over, and a request may wait for it.
		linger = lingerTime
	}
	if linger == 0 || l.socket == nil {
		ls.close(l)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(linger, func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if l.linger == timer { // nobody has come, nor come and gone
			ls.close(l)
		}
	})
	l.linger = timer
}

func (ls *listeners) close(l *listener) {
	delete(ls.open, l.addr)
	for _, timer := range []*time.Timer{l.retry, l.linger} {
		if timer != nil {
			timer.Stop()
		}
	}
	l.retry, l.linger = nil, nil
	if l.socket != nil {
		l.stand.close(l.socket)
	}
}

// HandOver closes the listeners whose address a server of the config has, now that
// everything of it has started, and gives that server what they have held. The others
// answer for ACME challenges of this config from now on.
func HandOver(front *Front) { temporary.handOver(front) }

func (ls *listeners) handOver(front *Front) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open {
		srv, _ := front.server(l.host, l.port)
		if srv == nil {
			l.stand.front.Store(front)
			continue
		}
		l.logger.Info("leaving the port to the server of the config", zap.String("address", l.addr), zap.String("server", srv.Name()))
		l.stand.heir.Store(srv)
		ls.close(l)
	}
}

// CloseUnused closes the listeners that are left open for a next user. Call it when none
// is to be expected.
func CloseUnused() { temporary.closeUnused() }

func (ls *listeners) closeUnused() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open {
		if l.users == 0 {
			ls.close(l)
		}
	}
}
