package statuspage

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/test/chromium"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

var pictures = flag.String("pictures", "", "write pictures of the page to this directory")

// business enters orders such as a shop has after buying for a year.
func (o *office) business() {
	o.unordered = map[string][]string{"digicert": {"tomorrow.example.com"}}
	now := o.now
	for i, name := range []string{
		"shop", "blog", "mail", "api", "cdn", "docs", "status", "login", "news", "files", "img", "pay", "help", "jobs", "maps", "git",
		"wiki", "chat", "search", "forum", "events", "press", "video", "static", "partner", "stage", "demo", "labs", "store", "id",
	} {
		vendor, account := "racent", "portal.example"
		if i%3 == 2 {
			vendor, account = "digicert", "api.example"
		}
		age := i*127%350 + 2
		o.now = now.AddDate(0, 0, -age)
		o.enter(vendor, account, name+".example.com", func(e *ledger.Entry) {
			e.OrderID = fmt.Sprintf("2611%02dux%d", i, 104729*(i+3))
			begins := e.Paid
			for life := 133 * day; now.Sub(begins) > life; {
				begins = begins.Add(life)
			}
			e.Certificate.NotBefore, e.Certificate.NotAfter = begins, begins.Add(199*day)
			if e.Certificate.NotAfter.After(e.Ends) {
				e.Certificate.NotAfter = e.Ends
			}
		})
	}
	o.now = now.Add(-3 * time.Hour)
	pending := func(problem string) func(*ledger.Entry) {
		return func(e *ledger.Entry) {
			e.State, e.Certificate, e.Issued, e.Covered, e.Problem = ledger.Open, nil, 0, nil, problem
			e.OrderID = "261129oyhuddbtnw"
			e.Attempt.AddVisits([]ledger.Visit{{Time: o.now, Host: e.Names[0], From: "192.0.2.9", Server: "web1", UserAgent: "CA validation agent", Status: 404}}, 1)
		}
	}
	o.enter("racent", "portal.example", "new.example.com", pending(""))
	o.enter("digicert", "api.example", "portal.example.com", pending("the validation file was not found: status 404 from 192.0.2.10"))
	o.now = now.AddDate(0, 0, -8)
	o.enter("racent", "portal.example", "lost.example.com", func(e *ledger.Entry) {
		pending("")(e)
		e.State, e.OrderID = ledger.Asked, ""
		e.Flag = &ledger.Flag{Since: now, Reason: "the answer to the paid request was lost, and for seven days the vendor could not tell whether it has the order"}
	})
	o.now = now
}

// screens are the screens on which pages must look good.
var screens = map[string]chromium.Screen{
	"phone-light":   {Width: 360, Height: 740, Phone: true},
	"phone-dark":    {Width: 360, Height: 740, Phone: true, Dark: true},
	"desktop-light": {Width: 1280, Height: 800},
	"desktop-dark":  {Width: 1280, Height: 800, Dark: true},
}

// documented are the pictures in docs/status-page.md.
var documented = []string{
	"status-orders-desktop-light.png", "status-orders-phone-dark.png", "status-order-desktop-dark.png", "status-order-phone-light.png",
}

// TestInBrowser checks the page in a real browser.
func TestInBrowser(t *testing.T) {
	b := chromium.Start(t)
	o := newOffice(t)
	o.business()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := o.ServeHTTP(w, r, nil); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	for name, screen := range screens {
		for title, query := range map[string]string{
			"orders": "/", "filtered": "/?state=open", "order": "/?order=lost.example.com", "visits": "/?order=portal.example.com", "long": "/?about=" + strings.Repeat("long", 100),
		} {
			p := b.Open(srv.URL+query, screen)
			for _, problem := range p.Problems() {
				t.Errorf("%s, %s: %s", name, title, problem)
			}
			file := "status-" + title + "-" + name + ".png"
			if *pictures != "" && slices.Contains(documented, file) {
				if err := os.WriteFile(filepath.Join(*pictures, file), p.Screenshot(), 0o644); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestByKeyboard: the first Tab leads to the content, and whatever has the focus shows it.
func TestByKeyboard(t *testing.T) {
	b := chromium.Start(t)
	o := newOffice(t)
	o.business()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = o.ServeHTTP(w, r, nil) }))
	defer srv.Close()
	p := b.Open(srv.URL, screens["desktop-light"])
	var stops []string
	for range 100 {
		p.Press("Tab")
		var at struct{ Name, Outline string }
		p.Eval(`(() => {
			const e = document.activeElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
			return {name: e.tagName + " " + (e.id || e.textContent.trim()), outline: s.outlineStyle + " " + s.outlineWidth + " " + (box.top >= 0 && box.left >= 0)};
		})()`, &at)
		if strings.HasPrefix(at.Name, "BODY") { // all elements were visited
			break
		}
		if at.Outline != "solid 3px true" {
			t.Errorf("%s has the focus but does not show it: %s", at.Name, at.Outline)
		}
		stops = append(stops, at.Name)
	}
	for i, want := range []string{"A Skip to the content", "A Commercial certificates"} {
		if stops[i] != want {
			t.Errorf("stop %d is %q, want %q", i, stops[i], want)
		}
	}
	for _, want := range []string{"A lost.example.com", "INPUT about", "SELECT state", "SELECT vendor", "BUTTON Show", "A shop.example.com"} {
		if !slices.Contains(stops, want) {
			t.Errorf("%q cannot be reached: %q", want, stops)
		}
	}
}
