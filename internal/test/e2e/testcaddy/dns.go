package main

import (
	// The DNS provider of the tests, dns.providers.e2e_update.
	_ "github.com/caddy-commercial/caddy-commercial/internal/test/e2e/dnsprovider"
)
