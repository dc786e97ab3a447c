package sandboxca

import (
	"testing"
	"time"
)

// TestDays checks that days scale with the year, and that many of them do not overflow.
func TestDays(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		year time.Duration
		days int
		want time.Duration
	}{
		{365 * day, 30, 30 * day},
		{365 * day, 3 * 365, 3 * 365 * day},
		{365 * time.Second, 90, 90 * time.Second},
	} {
		if got := (&Config{Year: c.year}).days(c.days); got != c.want {
			t.Errorf("%d days of a year of %s: %s, want %s", c.days, c.year, got, c.want)
		}
	}
}
