// Package bundle reads certificates and private keys from files as people have them: PEM in any
// order, with whatever text there is around it, DER, PKCS#7 and PKCS#12, encrypted or not. It
// does not judge what it finds.
package bundle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf16"
)

var (
	// ErrPassword says that a password is wrong.
	ErrPassword = errors.New("wrong password")

	// ErrUnsupported says that a private key, or its encryption, is of a kind that cannot be
	// read.
	ErrUnsupported = errors.New("unsupported")
)

// Certificate is a certificate and the file that it is from.
type Certificate struct {
	*x509.Certificate
	File string
}

// Key is a private key and the file that it is from.
type Key struct {
	crypto.Signer
	File string
}

// Contents is what was found in files, each certificate and each key once.
type Contents struct {
	Certificates []Certificate
	Keys         []Key

	// Notes tell what was left out, for people.
	Notes []string
}

// Password tells the password of a file that is encrypted.
type Password func(file string) (string, error)

// maxSize is far above what any such file has.
const maxSize = 4 << 20

// Read adds what is in a file. Errors name the file.
func (c *Contents) Read(file string, password Password) error {
	info, err := os.Stat(file)
	if err != nil {
		return err // it has the name
	}
	if !info.Mode().IsRegular() && info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return fmt.Errorf("%s is not a file", file)
	}
	if info.Size() > maxSize {
		return fmt.Errorf("%s has %d bytes, which is too much for certificates", file, info.Size())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return c.Add(file, data, password)
}

// Add adds what is in the contents of a file.
func (c *Contents) Add(file string, data []byte, password Password) error {
	r := &reader{Contents: c, file: file, ask: password}
	before := len(c.Certificates) + len(c.Keys)
	data = decodeText(data)
	var err error
	switch {
	case bytes.Contains(data, []byte(begin)):
		err = r.pem(data)
	case len(data) > 0 && data[0] == 0x30: // an ASN.1 SEQUENCE
		err = r.der(data)
	default:
		err = errors.New("it is neither PEM nor DER")
	}
	if err == nil && len(c.Certificates)+len(c.Keys) == before && !r.known {
		err = errors.New("it has neither a certificate nor a private key")
		if len(r.others) > 0 {
			err = fmt.Errorf("%w, but %s", err, strings.Join(r.others, ", "))
		}
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}

// reader reads one file.
type reader struct {
	*Contents
	file   string
	ask    Password
	told   *string  // the password, once it was asked for
	known  bool     // something in it was in another file, too
	others []string // what it has besides
}

// password asks for the password of the file, once.
func (r *reader) password() (string, error) {
	if r.told == nil {
		if r.ask == nil {
			return "", errors.New("it is encrypted, and there is no password")
		}
		password, err := r.ask(r.file)
		if err != nil {
			return "", err
		}
		r.told = &password
	}
	return *r.told, nil
}

func (r *reader) note(format string, args ...any) {
	r.Notes = append(r.Notes, r.file+": "+fmt.Sprintf(format, args...))
}

func (r *reader) addCertificate(cert *x509.Certificate) {
	if slices.ContainsFunc(r.Certificates, func(have Certificate) bool { return have.Equal(cert) }) {
		r.known = true
		return
	}
	r.Certificates = append(r.Certificates, Certificate{cert, r.file})
}

func (r *reader) addKey(key crypto.Signer) {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if ok && slices.ContainsFunc(r.Keys, func(have Key) bool { return public.Equal(have.Public()) }) {
		r.known = true
		return
	}
	r.Keys = append(r.Keys, Key{key, r.file})
}

// decodeText undoes what Windows does to text: byte order marks, and UTF-16.
func decodeText(data []byte) []byte {
	if rest, ok := bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); ok {
		return rest
	}
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return data
	}
	units := make([]uint16, 0, len(data)/2)
	for rest := data[2:]; len(rest) >= 2; rest = rest[2:] {
		units = append(units, order.Uint16(rest))
	}
	return []byte(string(utf16.Decode(units)))
}
