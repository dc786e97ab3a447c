// Command peer is what the benchmark "many" compares the plugin with: Caddy with its
// standard modules, whose ZeroSSL issuer speaks to a stand-in of ZeroSSL's API on this
// machine; and, as "peer authority", that stand-in. The issuer has no option for the
// address of the API, so that it is the transport that leads there.
package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// apiHost is where the issuer believes the API to be, and apiVariable the environment
// variable that tells where it is instead.
const (
	apiHost     = "api.zerossl.com"
	apiVariable = "BENCH_ZEROSSL_API"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "authority" {
		if err := serveAuthority(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		return
	}
	api, err := url.Parse(os.Getenv(apiVariable))
	if err != nil || api.Host == "" {
		fmt.Fprintln(os.Stderr, "peer:", apiVariable, "must be a URL")
		os.Exit(2)
	}
	http.DefaultTransport = &detour{api: api, next: http.DefaultTransport}
	caddycmd.Main()
}

// detour sends to the stand-in what is meant for the API, and refuses everything else:
// nothing is to leave this machine.
type detour struct {
	api  *url.URL
	next http.RoundTripper
}

func (d *detour) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != apiHost {
		return nil, fmt.Errorf("%s is not for this benchmark", r.URL.Host)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = d.api.Scheme, d.api.Host
	return d.next.RoundTrip(r)
}
