package issuer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/caddy-commercial/caddy-commercial/internal/bundle"
)

// shop is a directory of certificates and keys made by openssl.
type shop struct {
	t   *testing.T
	dir string
}

const shopConfig = `[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:example.com, DNS:www.example.com
extendedKeyUsage = serverAuth, clientAuth
[nameless]
extendedKeyUsage = serverAuth
[client]
subjectAltName = DNS:example.com
extendedKeyUsage = clientAuth
`

// newShop makes a root, an intermediate, and certificates for keys of each kind.
func newShop(t *testing.T) *shop {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; on Debian: apt-get install openssl")
	}
	s := &shop{t: t, dir: t.TempDir()}
	s.write("openssl.cnf", shopConfig)
	s.write("password", "Pa55 wörd\n")
	for name, args := range map[string]string{
		"root": "EC -pkeyopt ec_paramgen_curve:P-256", "inter": "EC -pkeyopt ec_paramgen_curve:P-256", "stranger": "EC -pkeyopt ec_paramgen_curve:P-384",
		"rsa": "RSA -pkeyopt rsa_keygen_bits:2048", "ec": "EC -pkeyopt ec_paramgen_curve:P-256", "ed25519": "ED25519",
	} {
		s.run("genpkey -algorithm " + args + " -out " + name + ".key")
	}
	s.run("req -x509 -config openssl.cnf -extensions ca -key root.key -days 3650 -subj /CN=Root -out root.crt")
	s.run("req -x509 -config openssl.cnf -extensions ca -key stranger.key -days 3650 -subj /CN=Stranger -out stranger.crt")
	s.issue("inter", "inter", "root", "ca", 3000)
	for _, kind := range []string{"rsa", "ec", "ed25519"} {
		s.issue(kind, kind, "inter", "leaf", 200)
	}
	s.join("chain.pem", "inter.crt", "root.crt")
	return s
}

// issue makes a certificate for a key.
func (s *shop) issue(to, key, by, extensions string, days int) {
	s.t.Helper()
	subject := "/CN=example.com"
	if extensions == "ca" {
		subject = "/CN=Intermediate"
	}
	s.run("req -new -config openssl.cnf -key " + key + ".key -subj " + subject + " -out " + to + ".csr")
	s.run(fmt.Sprintf("x509 -req -in %s.csr -CA %s.crt -CAkey %s.key -CAcreateserial -days %d -extfile openssl.cnf -extensions %s -out %s.crt",
		to, by, by, days, extensions, to))
}

func (s *shop) try(args string) ([]byte, error) {
	cmd := exec.Command("openssl", strings.Fields(args)...)
	cmd.Dir = s.dir
	return cmd.CombinedOutput()
}

func (s *shop) run(args string) {
	s.t.Helper()
	if out, err := s.try(args); err != nil {
		s.t.Fatalf("openssl %s: %v\n%s", args, err, out)
	}
}

func (s *shop) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shop) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

func (s *shop) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// join concatenates files.
func (s *shop) join(to string, from ...string) {
	s.t.Helper()
	var all strings.Builder
	for _, name := range from {
		all.WriteString(s.read(name))
	}
	s.write(to, all.String())
}

// load reads files as the command does.
func (s *shop) load(now time.Time, passwordFile string, files ...string) (*purchased, string, error) {
	var said strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	var paths []string
	for _, file := range files {
		paths = append(paths, s.path(file))
	}
	if passwordFile != "" {
		passwordFile = s.path(passwordFile)
	}
	read, err := readFiles(paths, passwords(passwordFile), say)
	if err != nil {
		return nil, said.String(), err
	}
	p, err := choose(read, now)
	if err == nil {
		p.describe(say)
	}
	return p, said.String(), err
}

func utf16LE(text string) string {
	var buf bytes.Buffer
	buf.WriteString("\xff\xfe")
	_ = binary.Write(&buf, binary.LittleEndian, utf16.Encode([]rune(text)))
	return buf.String()
}

// layouts are the ways in which people keep a certificate with its key and chain. Each makes the
// file "in", unless the files to read are named.
var layouts = []struct {
	name  string
	make  func(s *shop)
	files string
	leaf  string // the name of its certificate; rsa if empty
	notes []string
}{
	{name: "three files", files: "rsa.crt rsa.key inter.crt"},
	{name: "key, certificate and chain in one file", make: func(s *shop) { s.join("in", "rsa.key", "rsa.crt", "inter.crt") }},
	{name: "key last", make: func(s *shop) { s.join("in", "rsa.crt", "inter.crt", "rsa.key") }},
	{name: "chain upside down, with root", make: func(s *shop) { s.join("in", "root.crt", "inter.crt", "rsa.crt", "rsa.key") }, notes: []string{`the root "Root" is left out`}},
	{name: "fullchain and key", make: func(s *shop) { s.join("in", "rsa.crt", "chain.pem") }, files: "in rsa.key"},
	{name: "chain with strangers and duplicates", make: func(s *shop) { s.join("in", "stranger.crt", "inter.crt", "rsa.crt", "inter.crt", "ec.crt") }, files: "rsa.crt in rsa.key",
		notes: []string{`"Stranger" does not belong to it`, `"example.com" does not belong to it`}},
	{name: "CRLF", make: func(s *shop) {
		s.join("lf", "rsa.crt", "inter.crt", "rsa.key")
		s.write("in", strings.ReplaceAll(s.read("lf"), "\n", "\r\n"))
	}},
	{name: "UTF-8 with byte order mark", make: func(s *shop) { s.join("lf", "rsa.crt", "inter.crt", "rsa.key"); s.write("in", "\ufeff"+s.read("lf")) }},
	{name: "UTF-16 of Notepad", make: func(s *shop) {
		s.join("lf", "rsa.crt", "inter.crt", "rsa.key")
		s.write("in", utf16LE(strings.ReplaceAll(s.read("lf"), "\n", "\r\n")))
	}},
	{name: "text of openssl x509 -text around it", make: func(s *shop) {
		s.run("x509 -in rsa.crt -text -out text.crt")
		s.join("in", "text.crt", "inter.crt", "rsa.key")
	}},
	{name: "bag attributes", make: func(s *shop) {
		s.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -name shop -passout pass:x -out x.pfx")
		s.run("pkcs12 -in x.pfx -passin pass:x -nodes -out in")
		if !strings.Contains(s.read("in"), "Bag Attributes") {
			s.t.Error("there are no bag attributes")
		}
	}},
	{name: "put together without a line between", make: func(s *shop) {
		s.write("in", strings.TrimSpace(s.read("rsa.crt"))+strings.TrimSpace(s.read("inter.crt"))+strings.TrimSpace(s.read("rsa.key")))
	}},
	{name: "indented", make: func(s *shop) {
		s.join("lf", "rsa.crt", "inter.crt", "rsa.key")
		s.write("in", "tls: |\n  "+strings.ReplaceAll(s.read("lf"), "\n", "\n  "))
	}},
	{name: "with the request", make: func(s *shop) { s.join("in", "rsa.csr", "rsa.crt", "inter.crt", "rsa.key") }},
	{name: "trusted certificate", make: func(s *shop) { s.run("x509 -in rsa.crt -trustout -addtrust serverAuth -out in") }, files: "in rsa.key inter.crt"},
	{name: "all DER", make: func(s *shop) {
		s.run("x509 -in rsa.crt -outform DER -out crt.der")
		s.run("x509 -in inter.crt -outform DER -out inter.der")
		s.run("pkcs8 -topk8 -nocrypt -in rsa.key -outform DER -out key.der")
	}, files: "crt.der key.der inter.der"},
	{name: "PKCS#1, DER", make: func(s *shop) { s.run("rsa -in rsa.key -traditional -outform DER -out in") }, files: "rsa.crt in inter.crt"},
	{name: "PKCS#1, PEM", make: func(s *shop) { s.run("rsa -in rsa.key -traditional -out in") }, files: "rsa.crt in inter.crt"},
	{name: "SEC1, DER", leaf: "ec", make: func(s *shop) { s.run("ec -in ec.key -outform DER -out in") }, files: "ec.crt in inter.crt"},
	{name: "SEC1, PEM with parameters", leaf: "ec", make: func(s *shop) {
		s.run("ecparam -name prime256v1 -out parameters")
		s.run("ec -in ec.key -out sec1")
		s.join("in", "parameters", "sec1", "ec.crt", "inter.crt")
	}},
	{name: "Ed25519", leaf: "ed25519", files: "ed25519.crt ed25519.key inter.crt", notes: []string{"browsers do not take"}},
	{name: "legacy PEM, AES-256", make: func(s *shop) { s.run("rsa -in rsa.key -traditional -aes256 -passout file:password -out in") }, files: "rsa.crt in inter.crt"},
	{name: "legacy PEM, 3DES", make: func(s *shop) { s.run("rsa -in rsa.key -traditional -des3 -passout file:password -out in") }, files: "rsa.crt in inter.crt"},
	{name: "legacy PEM, EC, AES-128", leaf: "ec", make: func(s *shop) { s.run("ec -in ec.key -aes128 -passout file:password -out in") }, files: "ec.crt in inter.crt"},
	{name: "PKCS#8, AES-256", make: func(s *shop) { s.run("pkcs8 -topk8 -in rsa.key -passout file:password -out in") }, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8, AES-256, DER", make: func(s *shop) { s.run("pkcs8 -topk8 -in rsa.key -passout file:password -outform DER -out in") }, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8, AES-128, SHA-512", make: func(s *shop) {
		s.run("pkcs8 -topk8 -in rsa.key -v2 aes128 -v2prf hmacWithSHA512 -passout file:password -out in")
	}, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8, AES-192, SHA-1", make: func(s *shop) {
		s.run("pkcs8 -topk8 -in rsa.key -v2 aes192 -v2prf hmacWithSHA1 -passout file:password -out in")
	}, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8, 3DES", make: func(s *shop) { s.run("pkcs8 -topk8 -in rsa.key -v2 des3 -passout file:password -out in") }, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8 of PKCS#12, 3DES", make: func(s *shop) {
		s.run("pkcs8 -topk8 -in rsa.key -v1 PBE-SHA1-3DES -passout file:password -out in")
	}, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8 of openssl 1.0, MD5 and DES", make: func(s *shop) {
		s.run("pkcs8 -provider legacy -provider default -topk8 -in rsa.key -v1 PBE-MD5-DES -passout file:password -out in")
	}, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8 with SHA-1 and DES", make: func(s *shop) {
		s.run("pkcs8 -provider legacy -provider default -topk8 -in rsa.key -v1 PBE-SHA1-DES -passout file:password -out in")
	}, files: "rsa.crt in inter.crt"},
	{name: "PKCS#8 in the file of the certificates", make: func(s *shop) {
		s.run("pkcs8 -topk8 -in rsa.key -passout file:password -out sealed")
		s.join("in", "rsa.crt", "sealed", "inter.crt")
	}},
	{name: "PKCS#12 with all", make: func(s *shop) {
		s.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -passout file:password -out in")
	}},
	{name: "PKCS#12 of EC, without chain", leaf: "ec", make: func(s *shop) {
		s.run("pkcs12 -export -in ec.crt -inkey ec.key -passout file:password -out in")
	}, files: "in chain.pem"},
	{name: "PKCS#12, AES-128, SHA-512", make: func(s *shop) {
		s.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -keypbe AES-128-CBC -certpbe AES-128-CBC -macalg sha512 -passout file:password -out in")
	}},
	{name: "PKCS#12, 3DES", make: func(s *shop) {
		s.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -passout file:password -out in")
	}},
	{name: "PKCS#12, RC2 and 3DES of Windows", make: func(s *shop) {
		s.run("pkcs12 -export -legacy -in rsa.crt -inkey rsa.key -certfile chain.pem -passout file:password -out in")
	}},
	{name: "PKCS#12 with an empty password", make: func(s *shop) {
		s.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -passout pass: -out in")
	}},
	{name: "PKCS#7 of the vendor, PEM", make: func(s *shop) { s.run("crl2pkcs7 -nocrl -certfile rsa.crt -certfile chain.pem -out in") }, files: "in rsa.key"},
	{name: "PKCS#7 of the vendor, DER", make: func(s *shop) {
		s.run("crl2pkcs7 -nocrl -certfile rsa.crt -certfile chain.pem -outform DER -out in")
	}, files: "in rsa.key"},
	{name: "that of last year beside it", make: func(s *shop) {
		s.issue("old", "rsa", "inter", "leaf", 100)
		s.join("in", "old.crt", "rsa.crt", "inter.crt")
	}, files: "in rsa.key"},
	{name: "two keys", make: func(s *shop) { s.join("in", "ec.key", "rsa.key") }, files: "rsa.crt in inter.crt", notes: []string{"fits no certificate and is left out"}},
	{name: "issued by the root", leaf: "direct", make: func(s *shop) { s.issue("direct", "rsa", "root", "leaf", 200) }, files: "direct.crt root.crt rsa.key", notes: []string{"none, the root has issued it"}},
}

func TestImportLayouts(t *testing.T) {
	base := newShop(t)
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			s := &shop{t: t, dir: base.dir}
			if l.make != nil {
				l.make(s)
			}
			if l.files == "" {
				l.files = "in"
			}
			if l.leaf == "" {
				l.leaf = "rsa"
			}
			p, said, err := s.load(time.Now(), "password", strings.Fields(l.files)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			want := new(bundle.Contents)
			for _, file := range []string{l.leaf + ".crt", "inter.crt"} {
				if err := want.Read(s.path(file), nil); err != nil {
					t.Fatal(err)
				}
			}
			if !p.chain.leaf().Equal(want.Certificates[0].Certificate) || !isKeyOf(p.chain.leaf(), bundle.Key{Signer: p.key}) {
				t.Errorf("it is a different certificate or key\n%s", said)
			}
			switch direct := l.leaf == "direct"; {
			case direct && len(p.chain) != 1, !direct && (len(p.chain) != 2 || !p.chain[1].Equal(want.Certificates[1].Certificate)):
				t.Errorf("the chain has %d certificates\n%s", len(p.chain), said)
			}
			for _, note := range l.notes {
				if !strings.Contains(said, note) {
					t.Errorf("it does not say %q:\n%s", note, said)
				}
			}
			for _, secret := range []string{"PRIVATE KEY", "Pa55"} {
				if strings.Contains(said, secret) {
					t.Errorf("it says %q:\n%s", secret, said)
				}
			}
		})
	}
	if len(layouts) < 20 {
		t.Errorf("there are only %d layouts", len(layouts))
	}
}

// TestImportWrongFiles: the error says what is wrong, and in which file.
func TestImportWrongFiles(t *testing.T) {
	base := newShop(t)
	base.write("wrong", "not it\n")
	base.write("garbage", "hello\n")
	base.write("damaged", strings.Replace(base.read("rsa.crt"), "MII", "***", 1))
	base.write("cut", base.read("inter.crt")[:200])
	base.write("openssh", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n")
	base.run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out weak.key")
	base.issue("weak", "weak", "inter", "leaf", 200)
	base.run("genpkey -algorithm ED448 -out ed448.key")
	base.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-224 -out p224.key")
	base.issue("p224", "p224", "inter", "leaf", 200)
	base.issue("nameless", "rsa", "inter", "nameless", 200)
	base.issue("client", "rsa", "inter", "client", 200)
	base.run("pkcs8 -topk8 -in rsa.key -passout file:password -out sealed")
	base.run("rsa -in rsa.key -traditional -aes256 -passout file:password -out legacy")
	base.run("pkcs8 -topk8 -scrypt -in rsa.key -passout file:password -out scrypt")
	base.run("pkcs12 -export -in rsa.crt -inkey rsa.key -certfile chain.pem -passout file:password -out in.pfx")
	base.issue("latest", "rsa", "inter", "leaf", 3650)
	today := time.Now()
	for name, tt := range map[string]struct {
		files    string
		password string
		now      time.Time
		want     []string
	}{
		"wrong key":                  {files: "rsa.crt ec.key inter.crt", want: []string{"the private key in", "ec.key (ECDSA, P-256) does not fit the certificate for example.com", "rsa.crt", "RSA, 2048 bits"}},
		"expired":                    {files: "rsa.crt rsa.key inter.crt", now: today.AddDate(1, 0, 0), want: []string{"rsa.crt has expired at"}},
		"not yet valid":              {files: "rsa.crt rsa.key inter.crt", now: today.AddDate(0, 0, -2), want: []string{"rsa.crt is valid only from"}},
		"expired intermediate":       {files: "latest.crt rsa.key inter.crt", now: today.AddDate(0, 0, 3100), want: []string{`"Intermediate" has expired`, "--chain"}},
		"no such file":               {files: "nowhere.crt rsa.key", want: []string{"nowhere.crt: no such file"}},
		"a directory":                {files: ". rsa.key", want: []string{"is not a file"}},
		"no key":                     {files: "rsa.crt inter.crt", want: []string{"no private key", "rsa.crt", "--key"}},
		"no certificate":             {files: "rsa.key", want: []string{"no certificate in the files", "--cert"}},
		"only the CA's":              {files: "inter.crt rsa.key", want: []string{"only those of CAs", "inter.crt"}},
		"request for certificate":    {files: "rsa.csr rsa.key", want: []string{"rsa.csr: it has neither a certificate nor a private key, but a block CERTIFICATE REQUEST"}},
		"no chain":                   {files: "rsa.crt rsa.key", want: []string{`"CN=Intermediate"`, "--chain"}},
		"root, but no intermediate":  {files: "rsa.crt rsa.key root.crt", want: []string{`"CN=Intermediate"`, "--chain"}},
		"neither PEM nor DER":        {files: "garbage rsa.key", want: []string{"garbage: it is neither PEM nor DER"}},
		"damaged":                    {files: "damaged rsa.key", want: []string{"damaged", "line 1 is damaged"}},
		"cut off":                    {files: "rsa.crt rsa.key cut", want: []string{"cut: the PEM block that begins in line 1 is damaged"}},
		"wrong password, PKCS#8":     {files: "rsa.crt sealed inter.crt", password: "wrong", want: []string{"sealed", "wrong password"}},
		"wrong password, legacy":     {files: "rsa.crt legacy inter.crt", password: "wrong", want: []string{"legacy", "wrong password"}},
		"wrong password, PKCS#12":    {files: "in.pfx", password: "wrong", want: []string{"in.pfx: wrong password"}},
		"no password":                {files: "rsa.crt sealed inter.crt", want: []string{"sealed", "--password-file"}},
		"no such password file":      {files: "rsa.crt sealed inter.crt", password: "nowhere", want: []string{"reading the password", "nowhere"}},
		"key of SSH":                 {files: "rsa.crt openssh inter.crt", want: []string{"openssh", "unsupported"}},
		"Ed448":                      {files: "rsa.crt ed448.key inter.crt", want: []string{"ed448.key", "unsupported"}},
		"encrypted by scrypt":        {files: "rsa.crt scrypt inter.crt", password: "password", want: []string{"scrypt", "unsupported", "openssl pkey -aes256"}},
		"weak key":                   {files: "weak.crt weak.key inter.crt", want: []string{"weak.key is weak: RSA of 1024 bits"}},
		"curve that TLS has not":     {files: "p224.crt p224.key inter.crt", want: []string{"p224.key is on the curve P-224"}},
		"no names but a common name": {files: "nameless.crt rsa.key inter.crt", want: []string{"nameless.crt has no names of hosts"}},
		"for clients only":           {files: "client.crt rsa.key inter.crt", want: []string{"client.crt is not meant for servers"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{t: t, dir: base.dir}
			now := tt.now
			if now.IsZero() {
				now = today
			}
			_, said, err := s.load(now, tt.password, strings.Fields(tt.files)...)
			if err == nil {
				t.Fatalf("no error\n%s", said)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "not it") {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// TestImportWarnsOfPublicKeyFile: a private key that all users can read is imported, with a warning.
func TestImportWarnsOfPublicKeyFile(t *testing.T) {
	s := newShop(t)
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		if err := os.Chmod(s.path("rsa.key"), mode); err != nil {
			t.Fatal(err)
		}
		_, said, err := s.load(time.Now(), "", "rsa.crt", "rsa.key", "inter.crt")
		if err != nil || strings.Contains(said, "can be read by all users") != want {
			t.Errorf("mode %o: %v\n%s", mode, err, said)
		}
	}
}
