package statuspage

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// void are the elements without an end tag.
var void = []string{"meta", "input", "br"}

// checkPage fails if a page is not well-formed, cannot be used by people who do not see it or have
// no mouse, or contains anything from elsewhere.
func checkPage(tb testing.TB, body string) {
	tb.Helper()
	root := parseStrictly(tb, body)
	ids := make(map[string]bool)
	for _, n := range all(root) {
		if id := attr(n, "id"); id != "" {
			if ids[id] {
				tb.Errorf("there are two %q", id)
			}
			ids[id] = true
		}
	}
	counts, level := make(map[string]int), 0
	for _, n := range all(root) {
		counts[n.Data]++
		for _, a := range n.Attr {
			if a.Key == "style" || a.Key == "src" || strings.HasPrefix(a.Key, "on") {
				tb.Errorf("<%s %s>", n.Data, a.Key)
			}
		}
		for _, name := range []string{"for", "aria-labelledby"} {
			if ref := attr(n, name); ref != "" && !ids[ref] {
				tb.Errorf("<%s> refers to %q, which does not exist", n.Data, ref)
			}
		}
		switch n.Data {
		case "script", "link", "iframe", "object", "img", "base":
			tb.Errorf("there is a <%s>", n.Data)
		case "html":
			if attr(n, "lang") == "" {
				tb.Error("the page has no language")
			}
		case "h1", "h2", "h3":
			now, _ := strconv.Atoi(n.Data[1:])
			if now > level+1 {
				tb.Errorf("<%s> %q follows a heading of level %d", n.Data, text(n), level)
			}
			if level = now; strings.TrimSpace(text(n)) == "" {
				tb.Errorf("an empty <%s>", n.Data)
			}
		case "a":
			if href := attr(n, "href"); !strings.HasPrefix(href, "?") && !strings.HasPrefix(href, "#") && attr(n, "rel") != "noopener noreferrer" {
				tb.Errorf("a link to %q", href)
			}
			if strings.TrimSpace(text(n)) == "" {
				tb.Error("a link without a text")
			}
		case "table":
			if first := n.FirstChild.NextSibling; first.Data != "caption" || text(first) == "" {
				tb.Error("a table without a caption")
			}
		case "th":
			if s := attr(n, "scope"); s != "col" && s != "row" {
				tb.Errorf("a <th> with scope %q", s)
			}
		case "input", "select":
			id := attr(n, "id")
			if !slices.ContainsFunc(all(root), func(l *html.Node) bool { return l.Data == "label" && attr(l, "for") == id }) {
				tb.Errorf("<%s name=%q> has no label", n.Data, attr(n, "name"))
			}
		case "section":
			if attr(n, "aria-labelledby") == "" {
				tb.Error("a section without a name")
			}
		case "svg":
			if attr(n, "role") != "img" || attr(n, "aria-labelledby") == "" {
				tb.Error("a picture without a text")
			}
		}
	}
	for _, one := range []string{"title", "header", "main", "footer", "h1"} {
		want := 1
		if one == "title" { // bars have titles, too
			want = max(1, counts[one])
		}
		if counts[one] != want {
			tb.Errorf("the page has %d <%s>", counts[one], one)
		}
	}
	if skip := all(root)[slices.IndexFunc(all(root), func(n *html.Node) bool { return n.Data == "a" })]; attr(skip, "href") != "#main" {
		tb.Errorf("the first link is %q", text(skip))
	}
	if tb.Failed() {
		tb.Log(body)
	}
}

// parseStrictly fails on tags that do not match, which browsers would fix in different ways.
func parseStrictly(tb testing.TB, body string) *html.Node {
	tb.Helper()
	var open []string
	z := html.NewTokenizer(strings.NewReader(body))
	for kind := z.Next(); kind != html.ErrorToken; kind = z.Next() {
		name, _ := z.TagName()
		switch {
		case kind == html.StartTagToken && !slices.Contains(void, string(name)):
			open = append(open, string(name))
		case kind == html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != string(name) {
				tb.Fatalf("</%s> in %v\n%s", name, open, body)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		tb.Fatalf("%v are not closed", open)
	}
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

func all(root *html.Node) (list []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			list = append(list, n)
		}
	}
	return list
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// TestContrast: text has the contrast that WCAG 2.2 requires, 4.5:1, and other visible parts 3:1, in
// light and dark.
func TestContrast(t *testing.T) {
	blocks := regexp.MustCompile(`:root \{([^}]*--issued[^}]*)\}`).FindAllStringSubmatch(style, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d sets of colours", len(blocks))
	}
	for i, scheme := range []string{"light", "dark"} {
		colours := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(blocks[i][1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for least, pairs := range map[float64]string{
			4.5: "text/ground text/sheet quiet/ground quiet/sheet link/ground link/sheet text/asks-ground asks/asks-ground asks/sheet " +
				"pending/pending-ground issued/issued-ground past/past-ground sheet/link",
			3: "edge/sheet edge/ground charge/sheet renewal/sheet link/asks-ground",
		} {
			for pair := range strings.FieldsSeq(pairs) {
				a, b, _ := strings.Cut(pair, "/")
				light, dark := max(colours[a], colours[b]), min(colours[a], colours[b])
				if ratio := (light + 0.05) / (dark + 0.05); ratio < least {
					t.Errorf("%s, %s: %.2f:1", scheme, pair, ratio)
				}
			}
		}
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, colour string) (l float64) {
	t.Helper()
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(colour[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(fmt.Errorf("colour %s: %w", colour, err))
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}
