// Command peer is what the benchmark "many" compares the plugin with: Caddy with its
// standard modules, whose ZeroSSL issuer speaks to a stand-in for ZeroSSL's API on this
// machine; and, as "peer authority", that stand-in.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "authority" {
		if err := serveAuthority(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		return
	}
	api, err := url.Parse(os.Getenv(zerossltest.Variable))
	if err != nil || api.Host == "" {
		fmt.Fprintln(os.Stderr, "peer:", zerossltest.Variable, "must be a URL")
		os.Exit(2)
	}
	http.DefaultTransport = &zerossltest.Detour{API: api, Next: http.DefaultTransport}
	caddycmd.Main()
}

// serveAuthority serves until the process is ended. It prints its URL once it listens.
func serveAuthority(args []string) error {
	flags := flag.NewFlagSet("peer authority", flag.ExitOnError)
	httpPort := flags.Int("http-port", 0, "port of 127.0.0.1 where validation files are fetched")
	delay := flags.Duration("delay", 0, "how long each answer is delayed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	api, err := zerossltest.New(*httpPort, *delay)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "http://%s\n", ln.Addr())
	return (&http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
}
