package digicert

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocsAreComplete: the page docs/digicert.md names every call, status and option.
func TestDocsAreComplete(t *testing.T) {
	data, err := os.ReadFile("../../docs/digicert.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{methodFile, methodTXT, methodCNAME}
	for _, c := range wireCalls() {
		want = append(want, c.endpoint)
	}
	for word := range statuses {
		want = append(want, word)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[DigiCert]()) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			want = append(want, name)
		}
	}
	for _, word := range want {
		if !strings.Contains(string(data), "`"+word+"`") {
			t.Errorf("docs/digicert.md does not have `%s`", word)
		}
	}
	for _, number := range []string{
		fmt.Sprintf("every %d seconds", int(listKept.Seconds())), fmt.Sprintf("last %d minutes", listMinutes),
		fmt.Sprintf("has %d orders", listMost), fmt.Sprintf("then %d minutes pass", int(listPause.Minutes())),
		fmt.Sprintf("%d requests in 5 seconds and %d in 3 minutes", limits(1).Rates[0].Requests, limits(1).Rates[1].Requests),
	} {
		if !strings.Contains(string(data), number) {
			t.Errorf("docs/digicert.md does not have %q", number)
		}
	}
	if len(want) < 40 {
		t.Errorf("checked only %d words", len(want))
	}
}
