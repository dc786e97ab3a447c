package digicert

import (
	"slices"
	"testing"
)

// TestCallsHaveNames: faults and counters identify calls by name.
func TestCallsHaveNames(t *testing.T) {
	var names []string
	for _, route := range routes {
		if slices.Contains(names, route.name) {
			t.Errorf("two calls are named %s", route.name)
		}
		names = append(names, route.name)
	}
}
