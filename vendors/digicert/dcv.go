package digicert

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/vendors"
	"github.com/caddy-commercial/caddy-commercial/vendors/internal/kit"
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

// proofOf is what to publish for a random value under a method of the API. Methods
// by mail have nothing, and neither has a value that cannot stand in a file and a record.
func proofOf(word, value string) (vendors.Challenge, bool) {
	record := vendors.Challenge{Method: vendors.MethodDNS, RecordName: "_dnsauth"}
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

// challenges returns what a pending order wants published, asking for the random value
// if it is not known or may have been renewed. Where nothing tells the order's method
// (observed), the proofs of all methods are returned: the value is the same, and the
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
	value := o.value(ctx, orderID)
	var list []vendors.Challenge
	for _, word := range words {
		if ch, ok := proofOf(word, value); ok {
			list = append(list, ch)
		}
	}
	return list
}

// knownValue is a random value, or that there is none, until it is to be asked for again.
type knownValue struct {
	value string
	until time.Time
}

// valueKept is how long a random value is used without asking again. It lives 30 days and is
// replaced then (documented), so this and the time between two looks bound how long a dead one
// can stay published. noValueKept is the same for the answer that there is none.
const (
	valueKept   = time.Hour
	noValueKept = time.Minute
)

// keepValue remembers the random value of an order. Expires is empty if it is not told.
func (o *Orders) keepValue(orderID, value, expires string) {
	until := time.Now().Add(valueKept)
	if end := kit.Time(expires); value == "" {
		until = time.Now().Add(noValueKept)
	} else if !end.IsZero() && end.Before(until) {
		until = end
	}
	o.values.Store(orderID, knownValue{value, until})
}

// value returns the random value of an order, empty if there is none.
func (o *Orders) value(ctx context.Context, orderID string) string {
	if known, ok := o.values.Load(orderID); ok && time.Now().Before(known.(knownValue).until) {
		return known.(knownValue).value
	}
	answer, err := do[randomValue](ctx, o, callRandomValue, nil, orderID)
	if err != nil {
		// Observed: the call fails when nothing is left to validate.
		if e, ok := errors.AsType[*vendors.Error](err); ok && e.Code != "" {
			o.keepValue(orderID, "", "")
		}
		o.Logger.Debug("asking for the random value of an order failed", zap.String("order_id", orderID), zap.Error(err))
		return ""
	}
	o.keepValue(orderID, answer.Value, answer.Expires)
	return answer.Value
}

// Recheck implements vendors.Rechecker: the CA looks at all names of the order now.
// That a proof was not found yet is an error matching vendors.ErrStillIssuing; the
// CA goes on looking by itself for days (documented).
func (o *Orders) Recheck(ctx context.Context, orderID string, _ []string, method vendors.Method) error {
	defer o.watch.forget(orderID)
	_, err := do[struct{}](ctx, o, callCheckDCV, nil, orderID)
	if !hasCode(err, "invalid_dns_method") {
		return err
	}
	// The order is validated by mail, as one that a person placed may be
	// (documented). Changing that is free.
	word := o.methodWord(method)
	answer, err := do[randomValue](ctx, o, callChangeMethod, map[string]string{"dcv_method": word}, orderID)
	if err != nil {
		return err
	}
	o.keepValue(orderID, answer.Value, answer.Expires)
	e := o.Fail(callChangeMethod, "", "the order was validated by mail; changed to "+word, vendors.ErrStillIssuing)
	e.Verdict = vendors.Retryable
	return e
}
