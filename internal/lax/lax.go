// Package lax decodes JSON whose kinds of values differ from what the vendor's
// documents say. An optional field of an unexpected kind must not cost a good
// answer, which may have been paid for.
package lax

import (
	"encoding/json"
	"strings"
)

// Text takes a JSON string, number or boolean as text, and anything else as empty.
type Text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(b []byte) error {
	*t = ""
	switch {
	case len(b) == 0 || b[0] == '{' || b[0] == '[' || string(b) == "null":
		return nil
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = Text(s)
	default:
		*t = Text(b)
	}
	return nil
}

// Word is a text that is compared or used as a handle, without white space
// around it.
func (t Text) Word() string { return strings.TrimSpace(string(t)) }

// Value holds a value whose JSON may be of another kind than documented, for
// example PHP's empty array where an object is meant. It is then empty.
type Value[T any] struct{ V T }

// UnmarshalJSON implements json.Unmarshaler.
func (l *Value[T]) UnmarshalJSON(b []byte) error {
	var v T
	if json.Unmarshal(b, &v) == nil {
		l.V = v
	}
	return nil
}

// Nested is a Value that may also come as JSON inside a JSON string.
type Nested[T any] struct{ V T }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Nested[T]) UnmarshalJSON(b []byte) error {
	var quoted string
	if json.Unmarshal(b, &quoted) == nil {
		b = []byte(quoted)
	}
	var v T
	if json.Unmarshal(b, &v) == nil {
		n.V = v
	}
	return nil
}
