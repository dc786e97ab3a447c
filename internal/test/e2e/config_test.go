package e2e

import (
	"fmt"
	"strings"
)

const contact = `contact {
	first_name Ada
	last_name Lovelace
	email ada@example.com
	phone +44.2012345678
	organization "Analytical Engines"
	job_title Analyst
	address "12 St James's Square"
	city London
	state London
	postal_code SW1Y
	country GB
}
`

// issuer is an issuer that buys from the world's CA, with more options.
func (w *world) issuer(options ...string) string {
	return fmt.Sprintf(`issuer commercial {
	vendor racent {env.E2E_TOKEN} {
		endpoint %s
		test_service
	}
	product comodo-positivessl
	poll 50ms 1s
	probe strict
	%s
	%s
}
`, w.api, contact, strings.Join(options, "\n"))
}

// globals are the global options of a server at n. The listeners are not bound to an
// address, as in most configs; see localGlobals.
func (w *world) globals(n node, options ...string) string {
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	http_port %d
	https_port %d
	persist_config off
	skip_install_trust
	grace_period 1s
	storage %s
	log {
		output stderr
		format json
		level DEBUG
	}
	%s
}
`, n.admin, n.http, n.https, w.keep(n), strings.Join(options, "\n"))
}

// localGlobals bind all sites to the loopback address.
func (w *world) localGlobals(n node, options ...string) string {
	return w.globals(n, append(options, "default_bind 127.0.0.1")...)
}

// site is a site whose tls block has the given lines.
func site(address, tls string, directives ...string) string {
	return fmt.Sprintf("%s {\n\ttls {\n%s\n}\n\trespond /hello \"hello from %s\"\n%s\n}\n",
		address, tls, address, strings.Join(directives, "\n"))
}

// simple is the config of a server at n that buys for one name.
func (w *world) simple(n node, name string, issuerOptions ...string) string {
	return w.localGlobals(n) + site(name, w.issuer(issuerOptions...))
}
