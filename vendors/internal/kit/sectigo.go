package kit

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// sectigoDomain ends every token. Older answers of resellers have comodoca.com; what a
// vendor returns is published as it is.
const sectigoDomain = "sectigo.com"

// SectigoProofs are the proofs of control that Sectigo derives from a CSR in DER, for all
// of its names: a file and a CNAME record, either of which is enough.
//
// Documented by Sectigo ("Domain control validation: request token"): the hashes
// are of the DER bytes, MD5 in upper-case hex names the file, SHA-256 is its
// first line, and the unique value, if the order has one, its last. Observed:
// SHA-256 is in lower case, lines end with a single LF, and there is none at the
// end. MD5 is no security measure here, only a name.
func SectigoProofs(csr []byte, unique string) []vendors.Challenge {
	name := md5.Sum(csr)
	sum := sha256.Sum256(csr)
	hash := hex.EncodeToString(sum[:])
	lines := []string{hash, sectigoDomain}
	labels := []string{hash[:32], hash[32:]} // a label holds at most 63 bytes
	if unique != "" {
		lines, labels = append(lines, unique), append(labels, unique)
	}
	return []vendors.Challenge{
		{Method: vendors.MethodHTTP, FileName: fmt.Sprintf("%X.txt", name), FileContent: strings.Join(lines, "\n")},
		{Method: vendors.MethodDNS, RecordName: fmt.Sprintf("_%x", name), RecordType: "CNAME", RecordValue: strings.Join(append(labels, sectigoDomain), ".")},
	}
}

// IsSectigo reports whether a reseller's product code is of the Sectigo family,
// whose proofs are derived from the CSR; those of other CAs are random. The
// prefixes are those of the product codes in published modules for resellers.
func IsSectigo(code string) bool {
	for _, prefix := range []string{"comodo-", "sectigo-", "positivessl", "essential", "instantssl", "ssltrus"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}

// SectigoCAA are the names by which Sectigo recognizes itself in CAA records, from its
// knowledge base, "CAA Record (Certification Authority Authorization)". There are none
// for products of other CAs.
func SectigoCAA(product string) []string {
	if !IsSectigo(product) {
		return nil
	}
	return []string{"sectigo.com", "comodo.com", "comodoca.com", "usertrust.com", "trust-provider.com"}
}
