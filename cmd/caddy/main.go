// Command caddy is Caddy with its standard modules and this plugin. It serves the
// example and the tests; for a Caddy of your own, with other plugins, use xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-commercial/caddy-commercial"
)

func main() { caddycmd.Main() }
