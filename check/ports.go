package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// Port tells who listens on a port of this machine that the CA will come to. caddyRuns is whether
// a Caddy answers at the admin endpoint.
func Port(ctx context.Context, port int, caddyRuns bool) Result {
	addr := net.JoinHostPort("", strconv.Itoa(port))
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		_ = ln.Close() // nobody has connected
		if caddyRuns {
			return warning("let it listen there, or forward the port", "nobody listens on port %d, though Caddy is running", port)
		}
		return ok("port %d is free; Caddy can listen there", port)
	case errors.Is(err, fs.ErrPermission):
		return warning("allow Caddy to bind to low ports (setcap cap_net_bind_service=+ep), or run the check as Caddy's user",
			"this user may not listen on port %d", port)
	case !errors.Is(err, syscall.EADDRINUSE):
		return warning("check the network of this machine", "listening on port %d fails: %v", port, err)
	}
	who := listener(ctx, port)
	switch {
	case caddyRuns && who == "Caddy":
		return ok("Caddy listens on port %d", port)
	case who == "Caddy":
		return warning("stop it before Caddy is started with this config, or name its admin endpoint with --address", "a Caddy listens on port %d, and not with this config", port)
	}
	return warning("have it pass /.well-known/pki-validation/ on to Caddy, or stop it", "another program listens on port %d (%s)", port, who)
}

// listener is the name that whatever listens on a port of this machine gives itself.
func listener(ctx context.Context, port int) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return err.Error()
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}).RoundTrip(req)
	if err != nil {
		return "it does not speak HTTP"
	}
	_ = resp.Body.Close() // HEAD has none
	if server := resp.Header.Get("Server"); server != "" {
		return server
	}
	return "it does not identify itself"
}
