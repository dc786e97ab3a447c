// Package certpem reads the PEM texts in which vendors deliver certificates.
package certpem

import (
	"encoding/pem"
	"errors"
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
