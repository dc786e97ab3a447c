package dcv

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

const (
	// guestTime is how long a request is held that may be another server's. Loading the
	// rest of a config takes that long at most, or else it is not worth waiting for.
	guestTime = 10 * time.Second

	// maxGuests bounds the requests that are held at a time.
	maxGuests = 1024

	// ownTimeout bounds reading a request and writing one of our own answers.
	ownTimeout = 10 * time.Second

	// handedTimeout is how long answers of the server that takes over may last.
	handedTimeout = time.Minute
)

// stand is the HTTP server of a temporary listener.
type stand struct {
	host   string
	port   int
	logger *zap.Logger
	server *http.Server
	files  *Handler
	front  atomic.Pointer[Front]
	over   chan struct{} // closed with the listener
	heir   atomic.Pointer[caddyhttp.Server]
	held   chan struct{} // a slot for each request that is held
}

func newStand(l *listener) *stand {
	s := &stand{
		host: l.host, port: l.port, logger: l.logger, files: NewHandler(Live, l.logger),
		over: make(chan struct{}), held: make(chan struct{}, maxGuests),
	}
	s.server = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: ownTimeout,
		MaxHeaderBytes:    16 << 10, // as Caddy's servers have it
		ErrorLog:          zap.NewStdLog(zap.NewNop()),
	}
	// The port must be free again as soon as the last challenge is over.
	s.server.SetKeepAlivesEnabled(false)
	return s
}

func (s *stand) serve(socket net.Listener) {
	go func() {
		if err := s.server.Serve(socket); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.logger.Error("serving validation files failed", zap.String("address", socket.Addr().String()), zap.Error(err))
		}
	}()
}

// close closes the socket at once and lets running answers end.
func (s *stand) close(socket net.Listener) {
	// Closing is all that can be done about it.
	_ = socket.Close()
	close(s.over)
	grace := time.Second
	if s.heir.Load() != nil {
		grace = handedTimeout
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if s.server.Shutdown(ctx) != nil {
			_ = s.server.Close()
		}
	}()
}

// ServeHTTP answers for validation files and ACME challenges. An error of the handler
// means that the visitor has gone away.
func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limit := http.NewResponseController(w)
	_ = limit.SetWriteDeadline(time.Now().Add(ownTimeout)) // TCP has deadlines
	_ = limit.SetReadDeadline(time.Now().Add(guestTime + ownTimeout))
	_ = s.files.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if s.front.Load().handleChallenge(w, r) {
			return nil
		}
		if srv := s.awaitHeir(r.Context()); srv != nil {
			_ = limit.SetWriteDeadline(time.Time{})
			_ = limit.SetReadDeadline(time.Time{})
			srv.ServeHTTP(w, r)
			return nil
		}
		_ = limit.SetWriteDeadline(time.Now().Add(ownTimeout))
		http.Error(w, "no such validation file", http.StatusNotFound)
		return nil
	}))
}

// awaitHeir returns the server that a request was meant for, nil if there is none. As
// long as one is about to start, it has a socket on the same address already.
func (s *stand) awaitHeir(ctx context.Context) *caddyhttp.Server {
	select {
	case s.held <- struct{}{}:
		defer func() { <-s.held }()
	default:
		return s.heir.Load()
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.shared() {
		select {
		case <-s.over:
			return s.heir.Load()
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return s.heir.Load()
}

// shared reports whether another socket of this process has the address as well.
func (s *stand) shared() bool { return sharers(s.host, s.port) > 1 }
