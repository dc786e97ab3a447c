// Command testcaddy is Caddy with its standard modules and this plugin, as the end-to-end
// tests run it. Some things differ from a real one: a storage module reports every write
// to the test, see [Storage]; the names of tests lead to this machine, whatever the
// system's resolver says; and ZeroSSL's API is a stand-in.
package main

import (
	"fmt"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-commercial/caddy-commercial"
	"github.com/caddy-commercial/caddy-commercial/internal/test/e2e/resolver"
)

func main() {
	resolver.Use()
	if err := detour(); err != nil {
		fmt.Fprintln(os.Stderr, "testcaddy:", err)
		os.Exit(2)
	}
	caddycmd.Main()
}
