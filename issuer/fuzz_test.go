package issuer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile: parsing never panics, and whatever parses comes out the same after
// a trip through JSON, which is how Caddy stores and reloads it.
func FuzzCaddyfile(f *testing.F) {
	f.Add("commercial racent {env.RACENT_TOKEN}")
	f.Add("commercial {\n" + goodBlock + "}")
	f.Add("commercial sandbox {\n\tpoll 5s 10m\n\tspend_limit 3 per 24h\n\tbind ::1 127.0.0.1\n}")
	f.Add("commercial {\n\tvendor sandbox {\n\t\tyear 1h\n\t}\n\torder 1 a b\n\tone_order a b\n}")
	f.Add("commercial {\n\tcontact {\n\t\tcity \"\xff\"\n")
	f.Add("commercial { } }")
	f.Add("commercial {\n\tdcv\n}")
	files, err := filepath.Glob(filepath.Join("..", "caddyfile", "testdata", "*", "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		f.Fatalf("the golden files are not there: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "issuer commercial") {
			f.Add("commercial" + part)
		}
	}
	f.Fuzz(func(t *testing.T, input string) {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		var parsed Issuer
		if parsed.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		first, err := json.Marshal(&parsed)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		var fresh Issuer
		decoder := json.NewDecoder(bytes.NewReader(first))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&fresh); err != nil {
			t.Fatalf("decoding %s: %v", first, err)
		}
		second, err := json.Marshal(&fresh)
		if err != nil {
			t.Fatalf("encoding again: %v", err)
		}
		// JSON cannot hold what is not UTF-8.
		if utf8.ValidString(input) && !bytes.Equal(first, second) {
			t.Errorf("%s became %s", first, second)
		}
	})
}

// FuzzBuildChain: whatever a vendor delivers, there is no panic, and a chain that
// comes out starts with a leaf for the key, has an intermediate and no root, and
// every link of it verifies.
func FuzzBuildChain(f *testing.F) {
	ca, stranger := newTestCA(f, "ours"), newTestCA(f, "strange")
	key := newKey(f)
	pool := ders(
		ca.leaf(key.Public(), nil), ca.inter, ca.root,
		ca.leaf(newKey(f).Public(), nil), stranger.leaf(key.Public(), nil), stranger.inter, stranger.root,
		ca.sign(ca.authority("ours root"), stranger.inter, ca.root.PublicKey, stranger.interKey),
	)
	f.Add([]byte{0, 1}, []byte(nil), false)
	f.Add([]byte{2, 1, 0}, []byte(nil), true)
	f.Add([]byte{0, 1, 7, 5, 6}, []byte(nil), false)
	f.Add([]byte{4, 0, 5, 1, 3, 3}, []byte(nil), false)
	f.Add([]byte{0, 1}, []byte("garbage"), false)
	f.Add([]byte{1}, pool[0], true)
	f.Add([]byte{0}, slices.Concat(pool[1], []byte{0}), false)
	f.Fuzz(func(t *testing.T, picks, extra []byte, anyKey bool) {
		if len(picks) > 30 {
			return
		}
		var delivered [][]byte
		for _, pick := range picks {
			delivered = append(delivered, pool[int(pick)%len(pool)])
		}
		if len(extra) > 0 {
			delivered = append(delivered, extra)
		}
		var public any
		if !anyKey {
			public = key.Public()
		}
		got, err := buildChain(delivered, public)
		if err != nil {
			return
		}
		if len(got) < 2 {
			t.Fatalf("a chain of %d", len(got))
		}
		if got.leaf().IsCA {
			t.Error("the leaf is a CA")
		}
		if !anyKey && !key.PublicKey.Equal(got.leaf().PublicKey) {
			t.Error("the leaf has another key")
		}
		for i, cert := range got {
			if !slices.ContainsFunc(delivered, func(der []byte) bool { return bytes.Equal(der, cert.Raw) }) {
				t.Errorf("certificate %d was not delivered", i)
			}
			if isSelfSigned(cert) {
				t.Errorf("certificate %d is a root", i)
			}
			if i > 0 {
				if err := got[i-1].CheckSignatureFrom(cert); err != nil {
					t.Errorf("link %d: %v", i, err)
				}
			}
		}
	})
}
