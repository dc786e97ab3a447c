// Command rediscaddy is Caddy with its standard modules, this plugin, and a storage in
// Redis, see [Storage]. The end-to-end tests of clusters run it. Names lead to this
// machine, as in testcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-commercial/caddy-commercial"
	"github.com/caddy-commercial/caddy-commercial/internal/test/e2e/resolver"
)

func main() {
	resolver.Use()
	caddycmd.Main()
}
