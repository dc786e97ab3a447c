package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/caddy-commercial/caddy-commercial/internal/test/zerossltest"
)

// detour leads Caddy's ZeroSSL issuer to the stand-in for the API, if the test has one.
// The default transport stays what it is: the vendors' clients use copies of it, which
// have no detour.
func detour() error {
	text := os.Getenv(zerossltest.Variable)
	if text == "" {
		return nil
	}
	api, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", zerossltest.Variable, err)
	}
	transport := http.DefaultTransport.(*http.Transport)
	transport.RegisterProtocol("https", &zerossltest.Detour{API: api, Next: transport})
	return nil
}
