package zerossltest

import (
	"fmt"
	"net/http"
	"net/url"
)

// apiHost is where the issuer believes the API to be.
const apiHost = "api.zerossl.com"

// Variable is the environment variable that tells a process where the stand-in is.
const Variable = "ZEROSSL_STAND_IN"

// Detour sends to a stand-in what is meant for the API, and refuses everything else:
// nothing may leave this machine. It is a transport because the issuer has no option for
// the API's address.
type Detour struct {
	API  *url.URL
	Next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (d *Detour) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != apiHost {
		return nil, fmt.Errorf("%s is not the API", r.URL.Host)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = d.API.Scheme, d.API.Host
	return d.Next.RoundTrip(r)
}

// Interface guard
var _ http.RoundTripper = (*Detour)(nil)
