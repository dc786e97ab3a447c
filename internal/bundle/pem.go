package bundle

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const begin = "-----BEGIN "

// pem reads the blocks of a text one by one, so that a damaged one is not passed over.
func (r *reader) pem(text []byte) error {
	text = tidy(text)
	line := 1
	for {
		i := bytes.Index(text, []byte(begin))
		if i < 0 {
			return nil
		}
		line += bytes.Count(text[:i], []byte("\n"))
		text = text[i:]
		end := len(text)
		if next := bytes.Index(text[len(begin):], []byte(begin)); next >= 0 {
			end = len(begin) + next
		}
		block, _ := pem.Decode(text[:end])
		if block == nil {
			return fmt.Errorf("the PEM block that begins in line %d is damaged", line)
		}
		if err := r.block(block); err != nil {
			return fmt.Errorf("the %s that begins in line %d: %w", strings.ToLower(block.Type), line, err)
		}
		line += bytes.Count(text[:end], []byte("\n"))
		text = text[end:]
	}
}

// tidy mends what happens to PEM when it is copied: other line endings, blanks around lines,
// and an END and a BEGIN on one line, as where two files are joined of which the first has no
// line break at its end.
func tidy(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("-----"+begin), []byte("-----\n"+begin))
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		lines[i] = bytes.TrimSpace(line)
	}
	return append(bytes.Join(lines, []byte("\n")), '\n')
}

// block reads one block of PEM.
func (r *reader) block(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE", "X509 CERTIFICATE":
		r.certificate(block.Bytes)
	case "TRUSTED CERTIFICATE": // of openssl: a certificate, and what it is trusted for
		var first asn1.RawValue
		if _, err := asn1.Unmarshal(block.Bytes, &first); err != nil {
			return err
		}
		r.certificate(first.FullBytes)
	case "PKCS7", "CMS":
		return r.pkcs7(block.Bytes)
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return r.legacy(block)
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return err
		}
		r.addKey(key)
	case "ENCRYPTED PRIVATE KEY":
		return r.encrypted(block.Bytes)
	case "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "ANY PRIVATE KEY":
		return fmt.Errorf("%w: no certificate for servers has such a key", ErrUnsupported)
	default: // parameters, requests, public keys
		r.others = append(r.others, "a block "+block.Type)
	}
	return nil
}

// certificate adds a certificate. One that cannot be read is noted and left out: it need not be
// the one that is wanted.
func (r *reader) certificate(der []byte) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		r.note("a certificate in it cannot be read and is left out: %v", err)
		r.others = append(r.others, "a certificate that cannot be read")
		return
	}
	r.addCertificate(cert)
}

// legacy decrypts a key in OpenSSL's format from before PKCS#8, in which the headers of the
// block tell how it is encrypted.
func (r *reader) legacy(block *pem.Block) error {
	password, err := r.password()
	if err != nil {
		return err
	}
	//lint:ignore SA1019 as weak as it is, people have such files
	der, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // see above
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return ErrPassword
	case err != nil:
		return fmt.Errorf("%w encryption: %w", ErrUnsupported, err)
	}
	key, err := parseKey(der)
	if err != nil {
		return ErrPassword // its padding happened to look right
	}
	r.addKey(key)
	return nil
}
