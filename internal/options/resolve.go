package options

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
)

// Resolve replaces the placeholders in the value of a configuration field.
//
// A value that was not configured stays empty: whether it is required is for
// the caller to say. A placeholder that is unknown or evaluates to nothing is
// an error that names the field and the placeholder, and never the value,
// which may be a secret.
func Resolve(repl *caddy.Replacer, field, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	resolved, err := repl.ReplaceFunc(value, func(key string, val any) (any, error) {
		if caddy.ToString(val) != "" {
			return val, nil
		}
		// A missing file comes back as a known placeholder without a value.
		if val == nil && !strings.HasPrefix(key, "file.") {
			return nil, fmt.Errorf("%s is unknown", display(value, key))
		}
		return nil, fmt.Errorf("%s is empty or cannot be read", display(value, key))
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if resolved = strings.TrimSpace(resolved); resolved == "" {
		return "", fmt.Errorf("%s: value is empty after replacing placeholders", field)
	}
	if !utf8.ValidString(resolved) {
		return "", fmt.Errorf("%s: value is not UTF-8; some shells write files in UTF-16", field)
	}
	return resolved, nil
}

// display names a placeholder for an error. Braces in the middle of a secret
// look like a placeholder too, so only a value that is nothing else, or a key
// with a namespace, is repeated.
func display(value, key string) string {
	placeholder := "{" + key + "}"
	namespace, _, dotted := strings.Cut(key, ".")
	if strings.TrimSpace(value) == placeholder || dotted && (namespace == "env" || namespace == "file" || namespace == "system") {
		return "placeholder " + placeholder
	}
	return "a placeholder in the value"
}
