package proof

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Trial returns what to present and look for where the CA's own challenge is known only
// once the order is paid: something of the same kind and in the same place, so that a
// server that cannot be reached, or a DNS provider that cannot add the record, is found
// out before. It depends only on the arguments, so whoever has written the ID down can
// have the trial cleaned up in another process. An unknown method has no trial.
func Trial(id string, method vendors.Method, d vendors.Description) []vendors.Challenge {
	name, value := derive(id, "name"), derive(id, "value")
	switch method {
	case vendors.MethodHTTP, vendors.MethodHTTPS:
		return []vendors.Challenge{{Method: method, FileName: name + ".txt", FileContent: value}}
	case vendors.MethodDNS:
		ch := vendors.Challenge{Method: method, RecordName: "_" + name, RecordType: "TXT", RecordValue: value}
		if d.RecordType == "CNAME" {
			// Not every provider can add every type, and the paid order is too late
			// to find out. Nothing resolves below invalid (RFC 6761, section 6.4).
			ch.RecordType, ch.RecordValue = "CNAME", value+".invalid"
		}
		return []vendors.Challenge{ch}
	}
	return nil
}

// derive makes a text of the ID that fits into any place, whatever the ID is made of.
func derive(id, purpose string) string {
	sum := sha256.Sum256([]byte("caddy-commercial trial " + purpose + "\n" + id))
	return hex.EncodeToString(sum[:16])
}
