package kit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Unmarshal decodes JSON into the struct, slice or map that v points to, even if values are
// of other kinds than the vendor's documents say: an optional field of an unexpected kind
// must not cost a good answer, which may have been paid for.
//
//   - A string takes a string, number or boolean, without white space around it, and without
//     control characters that are not white space, unless the field has the tag `kit:"exact"`.
//     Other kinds read as empty.
//   - A bool and a number also take a string that holds one.
//   - A struct, slice or map takes a string that holds its JSON, too.
//   - json.RawMessage takes anything, and what implements json.Unmarshaler decides for
//     itself.
//   - What does not fit leaves its field at the zero value. An element that does not fit
//     stays in its slice as a zero value, so that no list gets shorter.
//
// Fields are named as for encoding/json, which also ignores the case of letters. The
// error is about the whole: data that is no JSON, or of another kind than v.
func Unmarshal(data []byte, v any) error {
	if !json.Valid(data) {
		return errors.New("answer is not JSON")
	}
	target := reflect.ValueOf(v).Elem()
	if u, ok := v.(json.Unmarshaler); ok {
		return u.UnmarshalJSON(data)
	}
	if decode(data, target, false) {
		return nil
	}
	switch target.Kind() {
	case reflect.Struct, reflect.Map:
		return errors.New("answer is not an object")
	case reflect.Slice:
		return errors.New("answer is not a list")
	default:
		return errors.New("answer is not a " + target.Kind().String())
	}
}

// decode sets the target from valid JSON, and reports whether that is of its kind.
// Otherwise the target is zero.
func decode(data json.RawMessage, target reflect.Value, exact bool) bool {
	target.SetZero()
	if u, ok := target.Addr().Interface().(json.Unmarshaler); ok {
		if u.UnmarshalJSON(data) == nil {
			return true
		}
		target.SetZero()
		return false
	}
	switch target.Kind() {
	case reflect.Pointer:
		value := reflect.New(target.Type().Elem())
		if string(bytes.TrimSpace(data)) == "null" || !decode(data, value.Elem(), exact) {
			return false
		}
		target.Set(value)
		return true
	case reflect.Struct:
		members, ok := nested[map[string]json.RawMessage](data)
		if ok {
			decodeFields(members, target)
		}
		return ok
	case reflect.Map:
		return decodeMap(data, target, exact)
	case reflect.Slice:
		elements, ok := nested[[]json.RawMessage](data)
		if !ok {
			return false
		}
		target.Set(reflect.MakeSlice(target.Type(), len(elements), len(elements)))
		for i, element := range elements {
			decode(element, target.Index(i), exact)
		}
		return true
	default:
		text, ok := scalar(data)
		if !exact {
			text = strings.TrimSpace(strings.Map(harmless, text))
		}
		return ok && decodeScalar(text, target)
	}
}

// nested decodes an object or a list, or a string that holds one.
func nested[T any](data json.RawMessage) (value T, ok bool) {
	var quoted string
	if json.Unmarshal(data, &quoted) == nil {
		data = json.RawMessage(quoted)
	}
	if json.Unmarshal(data, &value) != nil || reflect.ValueOf(value).IsNil() {
		var none T
		return none, false
	}
	return value, true
}

// scalar returns the text of a string, number or boolean.
func scalar(data json.RawMessage) (text string, ok bool) {
	data = bytes.TrimSpace(data)
	switch data[0] {
	case '{', '[', 'n':
		return "", false
	case '"':
		return text, json.Unmarshal(data, &text) == nil
	default:
		return string(data), true
	}
}

// harmless drops what could command a terminal: IDs and words of the vendor get into logs.
func harmless(r rune) rune {
	if unicode.IsControl(r) && !unicode.IsSpace(r) {
		return -1
	}
	return r
}

func decodeScalar(text string, target reflect.Value) bool {
	switch {
	case target.Kind() == reflect.String:
		target.SetString(text)
		return true
	case target.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		target.SetBool(err == nil && b)
		return err == nil
	case target.CanInt():
		n, err := strconv.ParseInt(text, 10, target.Type().Bits())
		if err == nil {
			target.SetInt(n)
		}
		return err == nil
	case target.CanFloat():
		f, err := strconv.ParseFloat(text, target.Type().Bits())
		if err == nil {
			target.SetFloat(f)
		}
		return err == nil
	}
	return false
}

func decodeMap(data json.RawMessage, target reflect.Value, exact bool) bool {
	members, ok := nested[map[string]json.RawMessage](data)
	if !ok {
		return false
	}
	t := target.Type()
	target.Set(reflect.MakeMapWithSize(t, len(members)))
	for name, member := range members {
		value := reflect.New(t.Elem()).Elem()
		decode(member, value, exact)
		target.SetMapIndex(reflect.ValueOf(name).Convert(t.Key()), value)
	}
	return true
}

// decodeFields sets the fields of a struct, also those of structs embedded in it.
func decodeFields(members map[string]json.RawMessage, target reflect.Value) {
	t := target.Type()
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			decodeFields(members, target.Field(i))
			continue
		case !field.IsExported() || name == "-":
			continue
		case name == "":
			name = field.Name
		}
		if data, ok := member(members, name); ok {
			decode(data, target.Field(i), field.Tag.Get("kit") == "exact")
		}
	}
}

// member returns the member of that name, or else one that differs in the case of letters.
func member(members map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	if data, ok := members[name]; ok {
		return data, true
	}
	found := ""
	for other := range members {
		// Of several the first in the alphabet, so that it does not depend on chance.
		if strings.EqualFold(other, name) && (found == "" || other < found) {
			found = other
		}
	}
	data, ok := members[found]
	return data, ok && found != ""
}

// IsEmpty reports whether JSON says nothing: absent, null, false, or an empty text, list or
// object.
func IsEmpty(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", `""`, "[]", "{}":
		return true
	}
	return false
}

// Flatten puts JSON of any shape into a text, for what vendors call errors: a text, a list,
// an object of either, or nothing.
func Flatten(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return ""
	}
	return flatten(v)
}

func flatten(v any) string {
	var parts []string
	switch v := v.(type) {
	case nil:
	case []any:
		for _, item := range v {
			parts = append(parts, flatten(item))
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key+": "+flatten(v[key]))
		}
	default:
		return fmt.Sprint(v)
	}
	return strings.Join(parts, "; ")
}

// Time reads a point in time as ISO 8601 has it, or a date, which is its first moment, so
// that no term is thought longer than it is. Anything else is the zero time.
func Time(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
