package kit

import (
	"encoding/json"
	"errors"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// minPartial is the shortest piece of a secret, at the end of a broken answer,
// that is still removed.
const minPartial = 4

// scrubber removes secrets from texts, also in the forms in which URLs, JSON,
// HTML and quoted strings write them. The zero value removes nothing.
type scrubber struct {
	pattern *regexp.Regexp
	forms   []string
}

func newScrubber(secrets []string) scrubber {
	var forms []string
	for _, s := range secrets {
		if s == "" {
			continue
		}
		inJSON, _ := json.Marshal(s)
		quoted := strconv.Quote(s)
		forms = append(forms, s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s),
			string(inJSON[1:len(inJSON)-1]), strings.ReplaceAll(s, "/", `\/`), quoted[1:len(quoted)-1])
	}
	if len(forms) == 0 {
		return scrubber{}
	}
	slices.Sort(forms)
	forms = slices.Compact(forms)
	// Longest first, so that no form leaves the tail of a longer one behind.
	slices.SortStableFunc(forms, func(a, b string) int { return len(b) - len(a) })
	parts := make([]string, len(forms))
	for i, form := range forms {
		parts[i] = regexp.QuoteMeta(form)
	}
	// Case-insensitive: escapes come with upper- and lower-case hex digits.
	return scrubber{pattern: regexp.MustCompile(`(?i)` + strings.Join(parts, "|")), forms: forms}
}

func (s scrubber) scrub(text string) string {
	if s.pattern == nil {
		return text
	}
	return s.pattern.ReplaceAllString(text, redacted)
}

// scrubCut is scrub for a text that may end in the middle of a secret.
func (s scrubber) scrubCut(text string) string {
	text = s.scrub(text)
	for _, form := range s.forms {
		for n := len(form) - 1; n >= minPartial; n-- {
			if strings.HasSuffix(text, form[:n]) {
				return text[:len(text)-n] + redacted
			}
		}
	}
	return text
}

// scrubError returns an error that reads like err without secrets and matches
// what err matches. It does not unwrap to err, whose text may hold them.
func (s scrubber) scrubError(err error) error {
	if err == nil {
		return nil
	}
	return &cleanError{text: s.scrub(err.Error()), err: err}
}

type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string        { return e.text }
func (e *cleanError) Is(target error) bool { return errors.Is(e.err, target) }

// GoString keeps %#v from walking into the original.
func (e *cleanError) GoString() string { return strconv.Quote(e.text) }
