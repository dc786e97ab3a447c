package check

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-commercial/caddy-commercial/dcv"
)

// Serve serves a file on a port of this machine, under any name, while no Caddy runs here.
// Without hosts, it listens on all addresses.
func Serve(ctx context.Context, hosts []string, port int, file dcv.Challenge) (end func(), err error) {
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != file.Path {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(file.Body) // a client that has gone needs no answer
		}),
	}
	var serving sync.WaitGroup
	end = func() {
		_ = server.Close()
		serving.Wait()
	}
	for _, host := range hosts {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			end()
			return nil, fmt.Errorf("serving the trial file on port %d: %w", port, err)
		}
		serving.Go(func() { _ = server.Serve(ln) }) // it ends with the server
	}
	return end, nil
}
