package kit

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Certificates returns the DER certificates of a text that holds nothing else but white
// space, in its order. An empty text has none.
func Certificates(text string) ([][]byte, error) {
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

// ReadCSR returns the DER of the certificate signing request that a text is, nil if it
// is not exactly one. Line ends may be missing or escaped.
func ReadCSR(text string) []byte {
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

// CSR is a certificate signing request in PEM.
func CSR(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// Deliver adds its certificates to an issued order: the leaf and those above it, each a text
// in PEM; there may be none above it. Without any that can be read it is as good as pending:
// the vendor may still be assembling them, and asking again is free.
func Deliver(order *vendors.Order, leaf, above string) {
	certs, err := Certificates(leaf)
	more, errAbove := Certificates(above)
	switch {
	case err != nil:
		order.Detail = fmt.Sprintf("certificate: %v", err)
	case len(certs) == 0:
		order.Detail = "issued, but without a certificate so far"
	case errAbove != nil:
		order.Detail = fmt.Sprintf("certificates above it: %v", errAbove)
	default:
		order.Certificates = append(certs, more...)
		return
	}
	order.Status = vendors.StatusPending
}

// Serial is a serial number as vendors write it, in hexadecimal without leading zeros and
// separators. Empty if it is none.
func Serial(text string) string {
	n, ok := new(big.Int).SetString(strings.NewReplacer(":", "", " ", "").Replace(text), 16)
	if !ok {
		return ""
	}
	return n.Text(16)
}
