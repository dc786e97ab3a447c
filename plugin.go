// Package caddycommercial is a Caddy plugin that gets certificates from
// commercial certificate authorities as effortlessly as Caddy gets free ones. Names
// are proven by files, which it serves, or by DNS records, which it adds and removes
// through Caddy's DNS providers.
//
// Importing it registers all modules of the plugin:
//
//	tls.issuance.commercial          the issuer, see package issuer
//	tls.vendors.digicert             DigiCert CertCentral
//	tls.vendors.howssl               HowSSL, a reseller of Sectigo and others
//	tls.vendors.racent               Racent and NicSRS, resellers of Sectigo and others
//	tls.vendors.sandbox              a CA in this process, for trying things out
//	http.handlers.dcv                serves validation files, see package dcv
//	http.handlers.commercial_status  shows the orders to people, see package statuspage
//	commercial                       the app that the issuers of a config share, see package app
//	commercial.events                what the events about orders come from, see package app
//	admin.api.commercial             has the HTTP app provisioned first, see package app
//
// Build Caddy with it by
//
//	xcaddy build --with github.com/caddy-commercial/caddy-commercial
package caddycommercial

import (
	// Each package registers its modules with Caddy.
	_ "github.com/caddy-commercial/caddy-commercial/app"
	_ "github.com/caddy-commercial/caddy-commercial/caddyfile"
	_ "github.com/caddy-commercial/caddy-commercial/dcv"
	_ "github.com/caddy-commercial/caddy-commercial/issuer"
	_ "github.com/caddy-commercial/caddy-commercial/statuspage"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/digicert"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/howssl"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/racent"
	_ "github.com/caddy-commercial/caddy-commercial/vendors/sandbox"
)
