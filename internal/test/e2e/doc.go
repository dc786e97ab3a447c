// Package e2e tests the plugin from the outside: the real Caddy binary, started,
// reloaded and killed as an operator or a bad day would; a sandbox CA in the test's
// process that it buys from over real sockets; and TLS clients that trust nothing
// but that CA. All of it stays on loopback addresses.
//
// The binary is built once per run from the package testcaddy. Set MATRIX_E2E to the name
// of a file to write the table of deaths to it.
package e2e
