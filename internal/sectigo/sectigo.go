// Package sectigo holds what resellers of Sectigo have in common: the proofs of
// control that Sectigo derives from a CSR, which products get them, and how the CA
// recognizes itself in CAA records.
package sectigo

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Domain ends every token. Older answers of resellers have comodoca.com; what a
// vendor returns is published as it is.
const Domain = "sectigo.com"

// Proof is the proof of control for all names of a CSR: a file, or a CNAME record
// whose name is relative to the proven name.
type Proof struct {
	FileName, FileContent   string
	RecordName, RecordValue string
}

// CSRHash returns the proof for a CSR in DER.
//
// Documented by Sectigo ("Domain control validation: request token"): the hashes
// are of the DER bytes, MD5 in upper-case hex names the file, SHA-256 is its
// first line, and the unique value, if the order has one, its last. Observed:
// SHA-256 is in lower case, lines end with a single LF, and there is none at the
// end. MD5 is no security measure here, only a name.
func CSRHash(csr []byte, unique string) Proof {
	name := md5.Sum(csr)
	sum := sha256.Sum256(csr)
	hash := hex.EncodeToString(sum[:])
	lines := []string{hash, Domain}
	labels := []string{hash[:32], hash[32:]} // a label holds at most 63 bytes
	if unique != "" {
		lines, labels = append(lines, unique), append(labels, unique)
	}
	return Proof{
		FileName:    fmt.Sprintf("%X.txt", name),
		FileContent: strings.Join(lines, "\n"),
		RecordName:  fmt.Sprintf("_%x", name),
		RecordValue: strings.Join(append(labels, Domain), "."),
	}
}

// IsProduct reports whether a reseller's product code is of the Sectigo family,
// whose proofs are derived from the CSR; those of other CAs are random. The
// prefixes are those of the product codes in published modules for resellers.
func IsProduct(code string) bool {
	for _, prefix := range []string{"comodo-", "sectigo-", "positivessl", "essential", "instantssl", "ssltrus"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}

// CAAIdentities are the CA's names in CAA records, from Sectigo's knowledge base,
// "CAA Record (Certification Authority Authorization)".
func CAAIdentities() []string {
	return []string{"sectigo.com", "comodo.com", "comodoca.com", "usertrust.com", "trust-provider.com"}
}
