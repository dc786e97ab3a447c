package racent

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// caDomain ends every token of Sectigo. Older answers of the vendor have
// comodoca.com; what the vendor returns is published as it is.
const caDomain = "sectigo.com"

// csrHash returns the proof of control that Sectigo derives from a CSR.
//
// Documented by Sectigo ("Domain control validation: request token"): the hashes
// are of the DER bytes, MD5 in upper-case hex names the file, SHA-256 is its
// first line, and the unique value, if the order has one, its last. Observed:
// the vendor writes SHA-256 in lower case, lines end with a single LF, and there
// is none at the end. MD5 is no security measure here, only a name.
func csrHash(csr []byte, unique string, method vendors.Method) vendors.Challenge {
	name := md5.Sum(csr)
	sum := sha256.Sum256(csr)
	hash := hex.EncodeToString(sum[:])
	if method == vendors.MethodDNS {
		labels := []string{hash[:32], hash[32:]}
		if unique != "" {
			labels = append(labels, unique)
		}
		return vendors.Challenge{
			Method:      method,
			RecordName:  fmt.Sprintf("_%x", name),
			RecordType:  "CNAME",
			RecordValue: strings.Join(append(labels, caDomain), "."),
		}
	}
	lines := []string{hash, caDomain}
	if unique != "" {
		lines = append(lines, unique)
	}
	return vendors.Challenge{
		Method:      method,
		FileName:    fmt.Sprintf("%X.txt", name),
		FileContent: strings.Join(lines, "\n"),
	}
}

// usesCSRHash reports whether a product's proofs are derived from the CSR: those
// of the Sectigo family are, those of other CAs are random. The prefixes are
// those of the product codes in published modules for the vendor.
func usesCSRHash(product string) bool {
	for _, prefix := range []string{"comodo-", "sectigo-", "positivessl", "essential", "instantssl", "ssltrus"} {
		if strings.HasPrefix(product, prefix) {
			return true
		}
	}
	return false
}
