package chromium

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNotices opens a page that is too wide, logs an error and breaks its policy.
func TestNotices(t *testing.T) {
	b := Start(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'")
		_, _ = w.Write([]byte(`<!DOCTYPE html><meta name="viewport" content="width=device-width"><title>wide</title>
<img src="/x.png"><script>console.error("oh")</script><div style="width:900px">x</div><table width="500"><tr><td>x</table>`))
	}))
	defer srv.Close()
	p := b.Open(srv.URL, Screen{Width: 360, Height: 740, Phone: true, Dark: true})
	var dark bool
	if p.Eval("matchMedia('(prefers-color-scheme: dark)').matches", &dark); !dark {
		t.Error("it is light")
	}
	said := strings.Join(p.Problems(), "\n")
	for _, part := range []string{"on a screen of 360", `"oh"`, "Content Security Policy", "x.png"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not in %s", part, said)
		}
	}
	if shot := p.Screenshot(); !strings.HasPrefix(string(shot), "\x89PNG") {
		t.Errorf("a picture of %d bytes", len(shot))
	}
}
