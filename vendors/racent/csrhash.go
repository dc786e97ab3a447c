package racent

import (
	"github.com/caddy-commercial/caddy-commercial/internal/sectigo"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// csrHash returns the proof of control that Sectigo derives from a CSR.
func csrHash(csr []byte, unique string, method vendors.Method) vendors.Challenge {
	proof := sectigo.CSRHash(csr, unique)
	if method == vendors.MethodDNS {
		return vendors.Challenge{
			Method: method, RecordName: proof.RecordName, RecordType: "CNAME", RecordValue: proof.RecordValue,
		}
	}
	return vendors.Challenge{Method: method, FileName: proof.FileName, FileContent: proof.FileContent}
}
