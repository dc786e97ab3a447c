package kit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
)

// judge decides from status and body, in this order, whether an answer is worth
// decoding. It returns nil if it is. readErr is how reading the body ended; understood
// is whether the body is of the kind that the request wants.
func judge(resp *http.Response, body []byte, readErr error, understood bool, secrets scrubber) *failure {
	status := resp.StatusCode
	e := &failure{status: status, retryAfter: retryAfter(resp.Header)}
	what := describe(resp.Header, body, readErr, secrets)
	switch {
	case status == http.StatusTooManyRequests:
		// Usually sent by a rate limit in front of the service, before anything was
		// done. But nothing proves that, and a look-up costs less than an order.
		e.again = true
		e.err = fmt.Errorf("too many requests: %s", what)
	case status >= 300 && status < 400:
		target := snippet(secrets.scrub(resp.Header.Get("Location")))
		e.err = fmt.Errorf("redirected to %q, which is not followed; check the endpoint", target)
	case status >= 500:
		e.again = true
		e.err = errors.New(what)
	case status < 200 || status >= 400:
		e.err = errors.New(what)
	case errors.Is(readErr, errTooLarge):
		e.err = readErr
	case readErr != nil, !understood:
		e.err = errors.New(what)
	default:
		return nil
	}
	return e
}

// tooLargeError is that of an answer with more than so many bytes.
type tooLargeError int

var errTooLarge = errors.New("answer is too large")

func (most tooLargeError) Error() string {
	return fmt.Sprintf("answer is larger than %d MiB", most>>20)
}

// Is implements the interface that errors.Is looks for.
func (tooLargeError) Is(target error) bool { return target == errTooLarge }

// describe says in a few words what kind of answer a body is.
func describe(h http.Header, body []byte, readErr error, secrets scrubber) string {
	// Far more than a snippet, far less than what is slow to search.
	text := secrets.scrubCut(string(body[:min(len(body), 4096)]))
	switch trimmed := bytes.TrimSpace(trimBOM(body)); {
	case errors.Is(readErr, errTooLarge):
		return readErr.Error()
	case readErr != nil:
		return fmt.Sprintf("answer was cut off after %d bytes: %q", len(body), snippet(text))
	case len(trimmed) == 0:
		return "answer is empty"
	case json.Valid(trimmed):
		return fmt.Sprintf("answer: %q", snippet(text))
	case trimmed[0] == '<':
		return fmt.Sprintf("answer is HTML instead of JSON: %q", snippet(text))
	case trimmed[0] == '{' || trimmed[0] == '[':
		return fmt.Sprintf("answer is JSON that is broken or cut off after %d bytes: %q", len(body), snippet(text))
	default:
		return fmt.Sprintf("answer is %q instead of JSON: %q", snippet(h.Get("Content-Type")), snippet(text))
	}
}

// maxSnippet is how many characters of an answer an error repeats.
const maxSnippet = 120

// snippet returns the first printable characters of a text, in one line.
func snippet(text string) string {
	var b strings.Builder
	count, space := 0, false
	for _, r := range text {
		if unicode.IsSpace(r) {
			space = count > 0
			continue
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
			count++
		}
		if count >= maxSnippet {
			break
		}
		b.WriteRune(r)
		count++
	}
	return b.String()
}

// trimBOM removes a UTF-8 byte order mark, which some servers put before JSON.
func trimBOM(body []byte) []byte {
	return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
}
