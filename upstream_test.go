package caddycommercial

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestUpstreamPatchesApply applies the patches of docs/upstream.md to the Caddy version in go.mod,
// one after the other, in both orders.
func TestUpstreamPatchesApply(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	caddyDir := strings.TrimSpace(goList(t, "-m", "-f", "{{.Dir}}", "github.com/caddyserver/caddy/v2"))
	changed := regexp.MustCompile(`(?m)^--- a/(\S+)$`)
	patches := []string{"upstream-http-validation.patch", "upstream-dns-provider.patch"}
	for range 2 {
		dir := t.TempDir()
		for _, name := range patches {
			patch, err := filepath.Abs(filepath.Join("docs", name))
			if err != nil {
				t.Fatal(err)
			}
			files := changed.FindAllStringSubmatch(read(t, patch), -1)
			if len(files) == 0 {
				t.Fatalf("%s changes no file", name)
			}
			for _, file := range files {
				copyOnce(t, filepath.Join(caddyDir, file[1]), filepath.Join(dir, file[1]))
			}
			apply := exec.CommandContext(t.Context(), git, "apply", patch)
			apply.Dir = dir
			apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
			if out, err := apply.CombinedOutput(); err != nil {
				t.Errorf("%s does not apply: %v\n%s", name, err, out)
			}
			for _, file := range files {
				if read(t, filepath.Join(dir, file[1])) == read(t, filepath.Join(caddyDir, file[1])) {
					t.Errorf("%s has not changed %s", name, file[1])
				}
			}
		}
		slices.Reverse(patches)
	}
}

// copyOnce copies a file unless it exists already.
func copyOnce(t *testing.T, from, to string) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(read(t, from)), 0o600); err != nil {
		t.Fatal(err)
	}
}
