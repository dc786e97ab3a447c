package lax

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestText(t *testing.T) {
	for in, want := range map[string]Text{
		`"a b"`: "a b", `12345678901234567890`: "12345678901234567890", `true`: "true", `false`: "false",
		`null`: "", `{"a":1}`: "", `[1]`: "", `""`: "", `0.50`: "0.50",
	} {
		var got struct{ V Text }
		got.V = "old"
		if err := json.Unmarshal([]byte(`{"V":`+in+`}`), &got); err != nil || got.V != want {
			t.Errorf("%s: %q, %v", in, got.V, err)
		}
	}
	if got := Text(" \n x ").Word(); got != "x" {
		t.Errorf("word is %q", got)
	}
}

func TestValueAndNested(t *testing.T) {
	for in, want := range map[string][]int{
		`[1,2]`: {1, 2}, `"[1,2]"`: nil, `{}`: nil, `"x"`: nil, `["a"]`: nil, `null`: nil,
	} {
		var got struct{ V Value[[]int] }
		if err := json.Unmarshal([]byte(`{"V":`+in+`}`), &got); err != nil || !reflect.DeepEqual(got.V.V, want) {
			t.Errorf("value %s: %v, %v", in, got.V.V, err)
		}
	}
	for in, want := range map[string][]int{
		`[1,2]`: {1, 2}, `"[1,2]"`: {1, 2}, `{}`: nil, `"x"`: nil, `"\"[1]\""`: nil, `""`: nil, `null`: nil,
	} {
		var got struct{ V Nested[[]int] }
		if err := json.Unmarshal([]byte(`{"V":`+in+`}`), &got); err != nil || !reflect.DeepEqual(got.V.V, want) {
			t.Errorf("nested %s: %v, %v", in, got.V.V, err)
		}
	}
}
