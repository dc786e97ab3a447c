package digicert

import (
	"context"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// The methods of the API that a program can serve, and where their proofs are.
//
// The file is documented under "File-based domain control validation": its name
// never changes, it is looked for on each exact name, and one value serves all
// names of an order. The records are documented on docs.digicert.com: TXT at the
// name itself or at _dnsauth below it, CNAME at _dnsauth, since 28 October 2025 in
// this form only. _dnsauth is used for both, where it meets no other record.
const (
	methodFile  = "http-token"
	methodTXT   = "dns-txt-token"
	methodCNAME = "dns-cname-token"

	recordName = "_dnsauth"
)

// methodWord is a method as the API calls it.
func (o *Orders) methodWord(m vendors.Method) string {
	switch {
	case m != vendors.MethodDNS:
		return methodFile
	case o.options.DNSRecord == recordCNAME:
		return methodCNAME
	}
	return methodTXT
}

// proofOf is what to publish for a random value under a method of the API. There is nothing
// to publish for methods by mail, nor for a value that does not fit into a file and a record.
func proofOf(word, value string) (vendors.Challenge, bool) {
	record := vendors.Challenge{Method: vendors.MethodDNS, RecordName: recordName}
	switch {
	case value == "" || len(value) > maxValue || strings.Trim(value, lettersAndDigits) != "":
	case word == methodFile:
		return vendors.Challenge{Method: vendors.MethodHTTP, FileName: "fileauth.txt", FileContent: value}, true
	case word == methodTXT:
		record.RecordType, record.RecordValue = "TXT", value
		return record, true
	case word == methodCNAME:
		record.RecordType, record.RecordValue = "CNAME", value+".dcv.digicert.com"
		return record, true
	}
	return vendors.Challenge{}, false
}

// Random values that were seen have 10 to 32 of these characters.
const (
	maxValue         = 128
	lettersAndDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// challenges returns what a pending order wants published. Where nothing tells the order's
// method (observed), the proofs of all methods are returned: the value is the same, and the
// caller knows which one was ordered.
func (o *Orders) challenges(ctx context.Context, orderID, word string) []vendors.Challenge {
	words := []string{word}
	switch word {
	case methodFile, methodTXT, methodCNAME:
	case "":
		words = []string{methodFile, o.methodWord(vendors.MethodDNS)}
	default:
		return nil
	}
	answer, err := do[randomValue](ctx, o, callRandomValue, nil, orderID)
	if err != nil {
		// Observed: the call fails when nothing is left to validate.
		o.Logger.Debug("asking for the random value of an order failed", zap.String("order_id", orderID), zap.Error(err))
	}
	var list []vendors.Challenge
	for _, word := range words {
		if ch, ok := proofOf(word, answer.Value); ok {
			list = append(list, ch)
		}
	}
	return list
}

// Recheck implements vendors.Rechecker: the CA looks at all names of the order now.
// If a proof is not found yet, the error matches vendors.ErrStillIssuing; the CA goes
// on looking by itself for days (documented).
func (o *Orders) Recheck(ctx context.Context, orderID string, _ []string, method vendors.Method) error {
	defer o.watch.forget(orderID)
	_, err := do[struct{}](ctx, o, callCheckDCV, nil, orderID)
	if !hasCode(err, "invalid_dns_method") {
		return err
	}
	// The order is validated by mail, as one that a person placed may be
	// (documented). Changing that is free.
	word := o.methodWord(method)
	if _, err := do[struct{}](ctx, o, callChangeMethod, map[string]string{"dcv_method": word}, orderID); err != nil {
		return err
	}
	e := o.Fail(callChangeMethod, "", "the order was validated by mail; changed to "+word, vendors.ErrStillIssuing)
	e.Verdict = vendors.Retryable
	return e
}
