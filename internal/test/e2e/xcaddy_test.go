package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const xcaddyMain = `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-commercial/caddy-commercial"
)

func main() { caddycmd.Main() }
`

// TestAsXcaddyBuildsIt: a main module that imports nothing but Caddy and this
// plugin's root, as xcaddy makes it, has all of the plugin's modules.
func TestAsXcaddyBuildsIt(t *testing.T) {
	t.Parallel()
	checkout, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(filepath.Join(checkout, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(checkout, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	// The versions are those of the checkout, because this must work without a
	// network; xcaddy would look for newer ones.
	const module = "github.com/caddy-commercial/caddy-commercial"
	_, requirements, ok := strings.Cut(string(own), "module "+module+"\n")
	if !ok {
		t.Fatal("go.mod does not name the module as expected")
	}
	goMod := "module caddy\n" + requirements +
		"\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + checkout + "\n"
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": xcaddyMain, "go.mod": goMod, "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", ".", "list-modules")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go run . list-modules: %v\n%s", err, out)
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		listed[strings.TrimSpace(line)] = true
	}
	for _, id := range []string{"tls.issuance.commercial", "tls.vendors.racent", "tls.vendors.sandbox", "http.handlers.dcv"} {
		if !listed[id] {
			t.Errorf("module %s is missing", id)
		}
	}
	if listed["caddy.storage.e2e_points"] {
		t.Error("the plugin brings a module of its tests along")
	}
}
