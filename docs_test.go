package caddycommercial

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// pages returns all pages that people read, with slashes.
func pages(t *testing.T) []string {
	t.Helper()
	list := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cmd/order-sandbox/README.md"}
	for _, file := range glob(t, filepath.Join("docs", "*.md")) {
		list = append(list, filepath.ToSlash(file))
	}
	return list
}

// prose returns a page without its fenced blocks.
func prose(t *testing.T, page string) string {
	t.Helper()
	return regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(read(t, page), "")
}

// anchors returns the anchors that GitHub generates for a page's headings.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(prose(t, page), -1) {
		anchor := anchorOf(heading[1])
		for i := 1; found[anchor]; i++ {
			anchor = fmt.Sprintf("%s-%d", anchorOf(heading[1]), i)
		}
		found[anchor] = true
	}
	return found
}

func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// TestLinks follows each link from a page to another file of the project.
func TestLinks(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	followed := 0
	for _, page := range pages(t) {
		for _, link := range links.FindAllStringSubmatch(prose(t, page), -1) {
			target, anchor, hasAnchor := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			followed++
			to := page
			if target != "" {
				to = path.Join(path.Dir(page), target)
			}
			if _, err := os.Stat(filepath.FromSlash(to)); err != nil {
				t.Errorf("%s links to %s: %v", page, link[1], err)
				continue
			}
			if hasAnchor && !anchors(t, to)[anchor] {
				t.Errorf("%s links to %s, but %s has no such heading", page, link[1], to)
			}
		}
	}
	if followed < 100 {
		t.Errorf("only %d links were found; has their format changed?", followed)
	}
}

// TestMentionedPagesExist checks the pages that comments and messages mention.
func TestMentionedPagesExist(t *testing.T) {
	mentions := regexp.MustCompile(`\bdocs/[a-z-]+\.md\b`)
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains([]string{".go", ".yml", ".Caddyfile"}, filepath.Ext(file)) {
			return err
		}
		for _, mentioned := range mentions.FindAllString(read(t, file), -1) {
			if _, err := os.Stat(filepath.FromSlash(mentioned)); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s mentions %s, which does not exist", file, mentioned)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestIndexOfDocs checks that each page is in the index, once.
func TestIndexOfDocs(t *testing.T) {
	index := read(t, filepath.Join("docs", "README.md"))
	for _, file := range glob(t, filepath.Join("docs", "*.md")) {
		name := filepath.Base(file)
		if n := strings.Count(index, "\n- ["+name+"]("+name+"): "); n != 1 && name != "README.md" {
			t.Errorf("docs/README.md has %d lines about %s", n, name)
		}
	}
}

func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(read(t, "README.md"), "\n"); n > 250 {
		t.Errorf("the README has %d lines; anything beyond 250 belongs in docs", n)
	}
}

// TestReadmeErrors checks that the messages which the README explains are headings of
// docs/troubleshooting.md, and that the links lead there.
func TestReadmeErrors(t *testing.T) {
	headings := read(t, filepath.Join("docs", "troubleshooting.md"))
	rows := regexp.MustCompile("(?m)^\\| \\[`(.+?)`\\]\\(docs/troubleshooting\\.md#(\\S+)\\) \\|").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(rows) != 6 {
		t.Errorf("the README explains %d messages", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(headings, "\n#### `"+row[1]+"`\n") || anchorOf(row[1]) != row[2] {
			t.Errorf("%q does not lead to a heading with the same words, but to %q", row[1], row[2])
		}
	}
}

// TestCaddyfilesAreFormatted compares all Caddyfiles that people see with the output of `caddy fmt`.
func TestCaddyfilesAreFormatted(t *testing.T) {
	for _, text := range append(fences(t, "caddyfile"), read(t, "example.Caddyfile")) {
		if formatted := caddyfile.Format([]byte(text)); !bytes.Equal(formatted, []byte(text)) {
			t.Errorf("caddy fmt returns\n%s\nfor\n%s", formatted, text)
		}
	}
}
