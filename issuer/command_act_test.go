package issuer

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// TestConsent: only a complete yes, or the flag, counts as consent.
func TestConsent(t *testing.T) {
	for _, c := range []struct {
		given    bool
		terminal bool
		in       string
		fail     string
	}{
		{true, false, "", ""},
		{true, true, "no\n", ""},
		{false, false, "yes\n", "give --yes"},
		{false, true, "yes\n", ""},
		{false, true, " yes", ""},
		{false, true, "y\n", "nothing was done"},
		{false, true, "YES\n", "nothing was done"},
		{false, true, "no\nyes\n", "nothing was done"},
		{false, true, "", "nothing was done"},
	} {
		err := consent(c.given, strings.NewReader(c.in), c.terminal)
		if (err != nil) != (c.fail != "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := consent(false, iotest.ErrReader(errors.New("gone")), true); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Error(err)
	}
}
