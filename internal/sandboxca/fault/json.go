package fault

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
)

// AddFields adds fields that nobody has heard of to a JSON object and to its
// "data".
func AddFields(body []byte) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return body
	}
	m["sandboxExtra"] = json.RawMessage(`{"nested":[1,null,{"deeper":true}]}`)
	m["Code2"] = json.RawMessage(`"not a code"`)
	var data map[string]json.RawMessage
	if json.Unmarshal(m["data"], &data) == nil && data != nil {
		data["sandboxExtra"] = json.RawMessage(`[[],{}]`)
		data["certificateNext"] = json.RawMessage(`null`)
		m["data"], _ = json.Marshal(data) // raw messages that were just decoded
	}
	out, err := json.Marshal(m)
	if err != nil {
		return body
	}
	return out
}

// Shuffle puts the fields of all objects of a JSON text in a random order, which depends
// on the seed. What is not JSON stays as it is.
func Shuffle(body []byte, seed uint64) []byte {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.More() {
		return body
	}
	var out bytes.Buffer
	writeShuffled(&out, v, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // to be repeatable
	return out.Bytes()
}

func writeShuffled(out *bytes.Buffer, v any, chance *rand.Rand) {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		chance.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		out.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				out.WriteByte(',')
			}
			writeValue(out, key)
			out.WriteByte(':')
			writeShuffled(out, v[key], chance)
		}
		out.WriteByte('}')
	case []any:
		out.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				out.WriteByte(',')
			}
			writeShuffled(out, item, chance)
		}
		out.WriteByte(']')
	default:
		writeValue(out, v)
	}
}

func writeValue(out *bytes.Buffer, v any) {
	text, _ := json.Marshal(v) // of a value that was just decoded
	out.Write(text)
}
