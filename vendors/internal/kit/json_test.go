package kit

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
)

type inner struct {
	Value string `json:"value" kit:"exact"`
	List  []string
}

type embedded struct {
	Shared string `json:"shared"`
}

// strict refuses everything but 1.
type strict struct{ ok bool }

func (s *strict) UnmarshalJSON(b []byte) error {
	if s.ok = string(b) == "1"; !s.ok {
		return errors.New("not 1")
	}
	return nil
}

type outer struct {
	embedded
	Text    string            `json:"text"`
	Flag    bool              `json:"flag"`
	Count   int64             `json:"count"`
	Price   float64           `json:"price"`
	Inner   inner             `json:"inner"`
	Pointer *inner            `json:"pointer"`
	Inners  []inner           `json:"inners"`
	ByName  map[string]inner  `json:"by_name"`
	Words   map[string]string `json:"words"`
	Raw     json.RawMessage   `json:"raw"`
	Strict  strict            `json:"strict"`
	Ignored string            `json:"-"`
}

func TestUnmarshal(t *testing.T) {
	for text, want := range map[string]outer{
		`{}`: {},
		`{"text":" a\n","flag":true,"count":7,"price":1.5,"shared":"s"}`:                  {Text: "a", Flag: true, Count: 7, Price: 1.5, embedded: embedded{"s"}},
		`{"text":12345678901234567890,"flag":"true","count":"7","price":" 1.5 "}`:         {Text: "12345678901234567890", Flag: true, Count: 7, Price: 1.5},
		`{"text":false,"flag":"yes","count":1.5,"price":"dear"}`:                          {Text: "false"},
		`{"text":"1\u001b[2J\u009b3m\u0000\t\n2","inner":{"value":"\u001b"}}`:             {Text: "1[2J3m\t\n2", Inner: inner{Value: "\x1b"}},
		`{"text":null,"flag":null,"count":null,"inner":null,"inners":null,"raw":null}`:    {Raw: json.RawMessage("null")},
		`{"text":{},"flag":[],"count":{},"price":[],"inner":[],"by_name":[],"inners":{}}`: {},
		`{"inner":{"value":" x\n","list":["a",1,null,["b"]]}}`:                            {Inner: inner{" x\n", []string{"a", "1", "", ""}}},
		`{"inner":"{\"value\":\"x\"}","inners":"[{\"value\":1}]"}`:                        {Inner: inner{Value: "x"}, Inners: []inner{{Value: "1"}}},
		`{"inner":"{\"value\":","inners":"nothing","by_name":"[]"}`:                       {},
		`{"pointer":{"value":"x"}}`:                                                       {Pointer: &inner{Value: "x"}},
		`{"pointer":[]}`:                                                                  {},
		`{"inners":[{"value":"a"},[],"b",{"value":"c"}]}`:                                 {Inners: []inner{{Value: "a"}, {}, {}, {Value: "c"}}},
		`{"by_name":{"a":{"value":"x"},"b":1},"words":{"a":1,"b":" c ","d":{}}}`:          {ByName: map[string]inner{"a": {Value: "x"}, "b": {}}, Words: map[string]string{"a": "1", "b": "c", "d": ""}},
		`{"TEXT":"upper","Text":"mixed"}`:                                                 {Text: "upper"},
		`{"Text":"mixed","text":"exact"}`:                                                 {Text: "exact"},
		`{"strict":1,"raw":[1, 2]}`:                                                       {Strict: strict{true}, Raw: json.RawMessage("[1, 2]")},
		`{"strict":2,"-":"x","ignored":"x","hidden":"x","count":"99999999999999999999"}`:  {},
	} {
		got := outer{Text: "before", Inner: inner{Value: "before"}}
		if err := Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", text, got, err, want)
		}
	}
}

func TestUnmarshalOfAnotherKind(t *testing.T) {
	var object outer
	var list []outer
	var text string
	for _, c := range []struct {
		data   string
		target any
		want   string
	}{
		{`[]`, &object, "answer is not an object"},
		{`null`, &object, "answer is not an object"},
		{`"x"`, &object, "answer is not an object"},
		{`{}`, &list, "answer is not a list"},
		{`null`, &list, "answer is not a list"},
		{`{}`, &text, "answer is not a string"},
		{`{`, &object, "answer is not JSON"},
		{``, &list, "answer is not JSON"},
		{`2`, new(strict), "not 1"},
	} {
		if err := Unmarshal([]byte(c.data), c.target); err == nil || err.Error() != c.want {
			t.Errorf("%s into a %T: %v", c.data, c.target, err)
		}
	}
	if err := Unmarshal([]byte(` [{"text":"a"},{}] `), &list); err != nil || len(list) != 2 || list[0].Text != "a" {
		t.Errorf("%+v, %v", list, err)
	}
}

// FuzzUnmarshal: whatever encoding/json can decode is decoded in the same way, and nothing panics.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{"value":"x","List":["a"]}`, `{"value":1,"list":[1]}`, `{"VALUE":"x","Value":"y"}`, `{"value":"\u0000\ud800"}`, `[]`, `null`, ` {} `, `{"list":"[\"a\"]"}`, `{"value":`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want inner
		err := Unmarshal(data, &got)
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil || members == nil {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if len(members) == 1 && json.Unmarshal(data, &want) == nil && want.Value != "" && got.Value != want.Value {
			t.Errorf("%q: got %q, want %q", data, got.Value, want.Value)
		}
		var all outer
		if err := Unmarshal(data, &all); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func TestFlatten(t *testing.T) {
	for raw, want := range map[string]string{
		``:                                    "",
		`null`:                                "",
		`"vendor invalid"`:                    "vendor invalid",
		`-7`:                                  "-7",
		`["a","b"]`:                           "a; b",
		`{"years":["years is required","x"]}`: "years: years is required; x",
		`{"b":"2","a":{"c":[1,null]}}`:        "a: c: 1; ; b: 2",
		`{broken`:                             "",
	} {
		if got := Flatten(json.RawMessage(raw)); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
}

func TestIsEmpty(t *testing.T) {
	for raw, want := range map[string]bool{
		``: true, ` null `: true, `""`: true, `false`: true, "[]\n": true, `{}`: true,
		`[null]`: false, `"a"`: false, `0`: false, `{"a":1}`: false,
	} {
		if got := IsEmpty(json.RawMessage(raw)); got != want {
			t.Errorf("%s: %v", raw, got)
		}
	}
}

func TestTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"2026-03-20":                time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC),
		"2026-03-20T20:05:28+00:00": time.Date(2026, 3, 20, 20, 5, 28, 0, time.UTC),
		"2026-03-20T20:05:28Z":      time.Date(2026, 3, 20, 20, 5, 28, 0, time.UTC),
		"2026-03-20T20:05:28+0200":  time.Date(2026, 3, 20, 18, 5, 28, 0, time.UTC),
		"":                          {},
		"soon":                      {},
	} {
		if got := Time(in); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}
