package kit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Missing names those of a block's fields that are required and blank, all at once.
func Missing(block string, fields []vendors.Field, required ...string) error {
	var names []string
	for _, f := range fields {
		if slices.Contains(required, f.Name) && strings.TrimSpace(*f.Value) == "" {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%s: missing %s", block, strings.Join(names, ", "))
}
