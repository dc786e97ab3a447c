package reseller

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
)

// Identities are the names by which Sectigo recognizes itself in CAA records, from its
// knowledge base.
var Identities = []string{"sectigo.com", "comodo.com", "comodoca.com", "usertrust.com", "trust-provider.com"}

// CSRHash computes Sectigo's CSR-hash validation values: functions of the DER
// encoding and the unique value
// (https://docs.sectigo.com/sps/domain-control-validation/request-token).
func CSRHash(der []byte, unique, trailer string) sandboxca.Proof {
	if trailer == "" {
		trailer = "sectigo.com"
	}
	name := md5.Sum(der)
	sum := sha256.Sum256(der)
	digest := hex.EncodeToString(sum[:])

	lines := []string{digest, trailer}
	labels := []string{digest[:32], digest[32:]}
	if unique != "" {
		lines = append(lines, unique)
		labels = append(labels, unique)
	}
	labels = append(labels, trailer)
	return sandboxca.Proof{
		FileName:    strings.ToUpper(hex.EncodeToString(name[:])) + ".txt",
		FileContent: strings.Join(lines, "\n"),
		DNSLabel:    "_" + hex.EncodeToString(name[:]),
		DNSTarget:   strings.Join(labels, "."),
	}
}
