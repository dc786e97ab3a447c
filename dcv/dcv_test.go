package dcv

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestNewChallenge(t *testing.T) {
	ch, err := NewChallenge("ref", []string{"Example.COM.", "example.com", "[2001:DB8:0::1]:80", "bücher.example"}, "A_b-1.txt", "one\r\ntwo\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"example.com", "2001:db8::1", "xn--bcher-kva.example"}; !slices.Equal(ch.Hosts, want) {
		t.Errorf("hosts: got %q, want %q", ch.Hosts, want)
	}
	if ch.Path != PathPrefix+"A_b-1.txt" || ch.FileName() != "A_b-1.txt" || string(ch.Body) != "one\r\ntwo\n" {
		t.Errorf("got %+v", ch)
	}
}

func TestNewChallengeRefuses(t *testing.T) {
	host := []string{"example.com"}
	long := strings.Repeat("a", 70<<10)
	for _, tc := range []struct {
		name, id   string
		hosts      []string
		file, body string
		part       string
	}{
		{"no id", "", host, "a.txt", "x", "id"},
		{"long id", long, host, "a.txt", "x", "id"},
		{"id with line feed", "a\nb", host, "a.txt", "x", "id"},
		{"no host", "id", nil, "a.txt", "x", "host"},
		{"empty host", "id", []string{""}, "a.txt", "x", "host"},
		{"wildcard", "id", []string{"*.example.com"}, "a.txt", "x", "host"},
		{"long host", "id", []string{strings.Repeat("a.", 127) + "com"}, "a.txt", "x", "host"},
		{"very long host", "id", []string{long}, "a.txt", "x", "host"},
		{"host with slash", "id", []string{"example.com/x"}, "a.txt", "x", "host"},
		{"host with empty label", "id", []string{"a..example"}, "a.txt", "x", "host"},
		{"no file", "id", host, "", "x", "file name"},
		{"long file", "id", host, long, "x", "file name"},
		{"file with slash", "id", host, "a/b.txt", "x", "file name"},
		{"file with backslash", "id", host, `a\b.txt`, "x", "file name"},
		{"file with percent", "id", host, "a%2fb.txt", "x", "file name"},
		{"parent directory", "id", host, "..", "x", "file name"},
		{"two dots", "id", host, "a..txt", "x", "file name"},
		{"hidden file", "id", host, ".htaccess", "x", "file name"},
		{"file with zero", "id", host, "a\x00.txt", "x", "file name"},
		{"file with umlaut", "id", host, "ä.txt", "x", "file name"},
		{"no body", "id", host, "a.txt", "", "body"},
		{"long body", "id", host, "a.txt", long, "body"},
		{"lone carriage return", "id", host, "a.txt", "a\rb", "body"},
		{"last carriage return", "id", host, "a.txt", "a\r", "body"},
		{"tab", "id", host, "a.txt", "a\tb", "body"},
		{"escape", "id", host, "a.txt", "a\x1b[2Jb", "body"},
		{"C1 control", "id", host, "a.txt", "a\u0085b", "body"},
		{"not UTF-8", "id", host, "a.txt", "a\xffb", "body"},
	} {
		_, err := NewChallenge(tc.id, tc.hosts, tc.file, tc.body)
		var bad *ChallengeError
		if !errors.As(err, &bad) || bad.Part != tc.part {
			t.Errorf("%s: got %v, want an error about the %s", tc.name, err, tc.part)
		} else if len(err.Error()) > 200 {
			t.Errorf("%s: error of %d bytes", tc.name, len(err.Error()))
		}
	}
}

func TestNormalizeHost(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":             "example.com",
		"EXAMPLE.com:8080":        "example.com",
		"example.com.":            "example.com",
		"example.com.:80":         "example.com",
		"BÜCHER.example.":         "xn--bcher-kva.example",
		"xn--bcher-kva.example":   "xn--bcher-kva.example",
		"127.0.0.1:80":            "127.0.0.1",
		"[::1]:80":                "::1",
		"[::1]":                   "::1",
		"::1":                     "::1",
		"0:0:0:0:0:0:0:1":         "::1",
		"_dmarc.Example.com":      "_dmarc.example.com",
		"":                        "",
		"[":                       "[",
		strings.Repeat("ü", 2000): "",
	} {
		if got := NormalizeHost(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { NormalizeHost("shop.example.com:8080") }); n != 0 {
		t.Errorf("%v allocations for a name in lower case", n)
	}
}

func TestTwin(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":             "www.example.com",
		"www.example.com":         "example.com",
		"shop.example.com":        "www.shop.example.com",
		"*.example.com":           "",
		"127.0.0.1":               "",
		"2001:db8::1":             "",
		"":                        "",
		strings.Repeat("a.", 125): "",
		"wwwexample.com":          "www.wwwexample.com",
		"localhost":               "www.localhost",
	} {
		if got := Twin(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzNewChallenge(f *testing.F) {
	f.Add("id", "example.com", "a.txt", "body\nsectigo.com")
	f.Add("id", "*.example.com", "../../etc/passwd", "a\rb")
	f.Add("id", "bücher.example", "a%2f.txt", "\r\n\r\n")
	f.Add("", "[::1]:80", ".well-known", "\x00")
	f.Add("i\nd", "EXAMPLE.COM.:80", strings.Repeat("a", 129), strings.Repeat("b", 64<<10+1))
	f.Fuzz(func(t *testing.T, id, host, file, body string) {
		ch, err := NewChallenge(id, []string{host}, file, body)
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		if again := NormalizeHost(ch.Hosts[0]); again != ch.Hosts[0] {
			t.Errorf("host %q normalizes to %q", ch.Hosts[0], again)
		}
		if strings.ContainsAny(ch.FileName(), "/\\%?#: ") || strings.Contains(ch.Path, "..") || ch.Path != PathPrefix+file {
			t.Errorf("path %q", ch.Path)
		}
		if string(ch.Body) != body || bytes.ContainsAny(ch.Body, "\x00\x1b\t") {
			t.Errorf("body %q", ch.Body)
		}
		s := NewStore()
		if err := s.Present(t.Context(), nil, ch); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Lookup(host, ch.Path); !ok || !bytes.Equal(got, ch.Body) {
			t.Errorf("presented for %q and not found there", host)
		}
	})
}
