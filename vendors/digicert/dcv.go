package digicert

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

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

	fileName    = "fileauth.txt"
	recordLabel = "_dnsauth"
	cnameSuffix = ".dcv.digicert.com"
)

// methodWord is a method as the API calls it.
func (o *Orders) methodWord(m vendors.Method) string {
	switch {
	case m != vendors.MethodDNS:
		return methodFile
	case o.record == recordCNAME:
		return methodCNAME
	}
	return methodTXT
}

// proofOf is what to publish for a random value under a method of the API. Methods
// by mail have nothing.
func proofOf(word, value string) (vendors.Challenge, bool) {
	if !usable(value) {
		return vendors.Challenge{}, false
	}
	switch word {
	case methodFile:
		return vendors.Challenge{Method: vendors.MethodHTTP, FileName: fileName, FileContent: value}, true
	case methodTXT:
		return vendors.Challenge{
			Method: vendors.MethodDNS, RecordName: recordLabel, RecordType: "TXT", RecordValue: value,
		}, true
	case methodCNAME:
		return vendors.Challenge{
			Method: vendors.MethodDNS, RecordName: recordLabel, RecordType: "CNAME", RecordValue: value + cnameSuffix,
		}, true
	}
	return vendors.Challenge{}, false
}

// maxValue bounds a random value; those seen have 10 to 32 characters.
const maxValue = 128

// usable reports whether a random value may be served as a file and stand in a
// record: letters and digits only.
func usable(value string) bool {
	return value != "" && len(value) <= maxValue && strings.Trim(strings.ToLower(value), "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

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

// value returns the random value of an order, empty if there is none.
func (o *Orders) value(ctx context.Context, orderID string) string {
	value, known := o.values.get(orderID)
	if !known {
		answer, err := o.client.RandomValue(ctx, orderID)
		if err != nil {
			// Observed: the call fails when nothing is left to validate.
			if e, ok := errors.AsType[*vendors.Error](err); ok && e.Code != "" {
				o.values.put(orderID, "", time.Now().Add(refusalKept))
			}
			o.logger.Debug("asking for the random value of an order failed", zap.String("order_id", orderID), zap.Error(err))
			return ""
		}
		value = answer.Value.Word()
		o.values.put(orderID, value, fresh(parseTime(answer.Expires)))
	}
	return value
}

// valueKept is how long a random value is used without asking again. It lives 30
// days and is replaced then (documented), so this bounds how long a dead one can
// stay published. refusalKept is the same for the answer that there is none.
const (
	valueKept   = time.Hour
	refusalKept = time.Minute
)

// fresh returns until when a value is used that expires at the given moment; zero
// means that it was not told.
func fresh(expires time.Time) time.Time {
	until := time.Now().Add(valueKept)
	if !expires.IsZero() && expires.Before(until) {
		return expires
	}
	return until
}

// valueCache remembers the random values of pending orders, so that following an
// order does not ask for it each time. The zero value is ready to use.
type valueCache struct {
	mu     sync.Mutex
	values map[string]cachedValue
}

type cachedValue struct {
	value string
	until time.Time
}

// maxValues bounds the memory; losing a value costs one free call.
const maxValues = 4096

func (c *valueCache) get(orderID string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[orderID]
	return v.value, ok && time.Now().Before(v.until)
}

func (c *valueCache) put(orderID, value string, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil || len(c.values) >= maxValues {
		c.values = make(map[string]cachedValue)
	}
	c.values[orderID] = cachedValue{value, until}
}

func (c *valueCache) forget(orderID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.values, orderID)
}

// Recheck implements vendors.Rechecker: the CA looks at all names of the order now.
// That a proof was not found yet is an error matching vendors.ErrStillIssuing; the
// CA goes on looking by itself for days (documented).
func (o *Orders) Recheck(ctx context.Context, orderID string, _ []string, method vendors.Method) error {
	err := o.client.CheckDCV(ctx, orderID)
	if !hasCode(err, "invalid_dns_method") {
		return err
	}
	// The order is validated by mail, as one that a person placed may be
	// (documented). Changing that is free.
	answer, err := o.client.ChangeMethod(ctx, orderID, o.methodWord(method))
	if err != nil {
		return err
	}
	o.values.put(orderID, answer.Value.Word(), fresh(parseTime(answer.Expires)))
	return &vendors.Error{
		Vendor: o.about.Name, Endpoint: "dcv-method", Verdict: vendors.Retryable,
		Message: "the order was validated by mail; changed to " + o.methodWord(method),
		Err:     vendors.ErrStillIssuing,
	}
}
