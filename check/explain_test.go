package check

import (
	"os"
	"strings"
	"testing"
)

func TestPlainest(t *testing.T) {
	list := []Diagnosis{{Cause: CauseUndecided, Name: "a"}, {Cause: CauseOther, Name: "b"}, {Cause: CauseCAA, Name: "c"}, {Cause: CauseCAA, Name: "d"}}
	if d := Plainest(list); d.Name != "c" {
		t.Errorf("got %+v", d)
	}
	if d := Plainest(nil); d.Cause != "" {
		t.Errorf("got %+v", d)
	}
}

// TestCausesAreDocumented: exactly the causes that exist are documented.
func TestCausesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/finding-out.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "| Cause | What it says |\n|---|---|\n")
	table, _, _ := strings.Cut(section, "\n\n")
	rows := strings.Split(table, "\n")
	if len(rows) != len(causes) {
		t.Errorf("%d rows for %d causes", len(rows), len(causes))
	}
	for i, cause := range causes {
		if i < len(rows) && !strings.HasPrefix(rows[i], "| `"+string(cause)+"` |") {
			t.Errorf("row %d is %s, want one for %s", i, rows[i], cause)
		}
	}
}
