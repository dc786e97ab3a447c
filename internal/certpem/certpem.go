// Package certpem reads the PEM texts in which vendors deliver certificates and repeat
// requests for them.
package certpem

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"regexp"
	"strings"
)

// Parse returns the DER certificates of a text that holds nothing else but white
// space, in its order. An empty text has none.
func Parse(text string) ([][]byte, error) {
	var certs [][]byte
	// Line ends may be CRLF (observed).
	rest := []byte(strings.TrimSpace(strings.ReplaceAll(text, "\r", "")))
	for len(rest) > 0 {
		if !strings.HasPrefix(string(rest), "-----BEGIN ") {
			return nil, errors.New("text between or around the PEM blocks")
		}
		block, next := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not a PEM certificate")
		}
		certs = append(certs, block.Bytes)
		rest = []byte(strings.TrimSpace(string(next)))
	}
	return certs, nil
}

// requestPEM is a request in PEM, whatever has become of its line ends.
var requestPEM = regexp.MustCompile(`^-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([^-]*)-----END (?:NEW )?CERTIFICATE REQUEST-----$`)

// escaped undoes line ends that were escaped twice (observed).
var escaped = strings.NewReplacer(`\r`, "", `\n`, "\n")

// Request returns the DER of the certificate signing request that a text is, nil if it
// is not exactly one. Line ends may be missing or escaped.
func Request(text string) []byte {
	found := requestPEM.FindStringSubmatch(strings.TrimSpace(escaped.Replace(text)))
	if found == nil {
		return nil
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(found[1]), ""))
	if err != nil {
		return nil
	}
	if _, err := x509.ParseCertificateRequest(der); err != nil {
		return nil
	}
	return der
}
