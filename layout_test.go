package caddycommercial

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which layers of the project each layer may import. What is not listed (the module
// root, commands, end-to-end tests and benchmarks) combines the layers and may import all of them.
var mayImport = map[string][]string{
	"caddyfile":  {"issuer", "statuspage", "dcv", "vendors", "internal"},
	"issuer":     {"issuer", "app", "check", "operator", "ledger", "dcv", "vendors", "internal", "bundle"},
	"statuspage": {"app", "operator", "internal"},
	"app":        {"operator", "ledger", "dcv", "vendors", "internal"},
	"check":      {"dcv", "vendors", "internal"},
	"operator":   {"ledger", "vendors", "internal"},
	"ledger":     {"vendors", "internal"}, // the types of what was ordered
	"vendors/*":  {"vendors", "vendors/*", "internal"},
	"vendors":    {"internal"},
	"dcv":        {"internal"},
	"internal":   {"internal"},
	"bundle":     {}, // it reads files, for the issuer only
}

func layerOf(pkg string) string {
	pkg = strings.TrimPrefix(strings.TrimPrefix(pkg, modulePath), "/")
	top, rest, _ := strings.Cut(pkg, "/")
	switch {
	case strings.HasPrefix(pkg, "internal/test/"):
		return "tests"
	case pkg == "internal/bundle":
		return "bundle"
	case top == "vendors" && rest != "":
		return "vendors/*"
	}
	return top
}

func TestDependenciesPointOneWay(t *testing.T) {
	checked := make(map[string]bool)
	for line := range strings.Lines(goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")) {
		words := strings.Fields(line)
		layer := layerOf(words[0])
		allowed, bounded := mayImport[layer]
		checked[layer] = true
		for _, imported := range words[1:] {
			if bounded && strings.HasPrefix(imported, modulePath) && imported != words[0] && !slices.Contains(allowed, layerOf(imported)) {
				t.Errorf("%s must not import %s", words[0], imported)
			}
		}
	}
	for layer := range mayImport {
		if !checked[layer] {
			t.Errorf("there is no package in %s", layer)
		}
	}
}

// The sandbox CA has layers: a core that knows no seller, the sellers' dialects on top of it, what
// goes wrong on purpose, and everything together.
const sandboxPath = modulePath + "/internal/sandboxca"

// sandboxLayers says which packages of the sandbox each of them may import.
var sandboxLayers = map[string][]string{
	"":          {},
	"/reseller": {""},
	"/racent":   {"", "/reseller"},
	"/digicert": {""},
	"/howssl":   {"", "/reseller"},
	"/fault":    {""},
	"/resolver": {""},
	"/quirk":    {"", "/reseller", "/racent", "/digicert", "/howssl", "/fault"},
	"/hostile":  {"", "/racent", "/digicert", "/howssl", "/fault", "/quirk"},
	"/control":  {"/fault", "/hostile"},
}

func TestSandboxIsInLayers(t *testing.T) {
	for line := range strings.Lines(goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./internal/sandboxca/...")) {
		words := strings.Fields(line)
		allowed, known := sandboxLayers[strings.TrimPrefix(words[0], sandboxPath)]
		if !known {
			t.Errorf("%s is not in sandboxLayers", words[0])
			continue
		}
		for _, imported := range words[1:] {
			if part, ours := strings.CutPrefix(imported, sandboxPath); ours && !slices.Contains(allowed, part) {
				t.Errorf("%s must not import %s", words[0], imported)
			}
		}
	}
}

// TestPluginLinksACalmSandbox checks everything that a Caddy with this plugin links: nothing in it
// can make a sandbox fail on purpose.
func TestPluginLinksACalmSandbox(t *testing.T) {
	var linked []string
	for pkg := range strings.Lines(goList(t, "-deps", ".")) {
		if part, ours := strings.CutPrefix(strings.TrimSpace(pkg), sandboxPath); ours {
			linked = append(linked, part)
		}
	}
	slices.Sort(linked)
	if want := []string{"", "/racent", "/reseller", "/resolver"}; !slices.Equal(linked, want) {
		t.Errorf("the plugin links packages %q of the sandbox, want %q", linked, want)
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
