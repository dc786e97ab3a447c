package kit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// CheckOrder judges what is alike for all vendors: there is a product, such as the example, and
// the vendor has the method, if one is chosen.
func (c *Client) CheckOrder(cfg vendors.OrderConfig, example string) error {
	var product, method error
	if cfg.Product == "" {
		product = fmt.Errorf("product: missing, for example %s", example)
	}
	if cfg.Method != "" && !c.about.Supports(cfg.Method) {
		method = fmt.Errorf("dcv: %s does not know the method %q", c.about.Name, cfg.Method)
	}
	return errors.Join(product, method)
}

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

// Country judges the country of a block: blank, or two letters.
func Country(block, country string) error {
	if country == "" || len(country) == 2 && strings.Trim(strings.ToUpper(country), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return nil
	}
	return fmt.Errorf("%s: country must be a two-letter code such as DE", block)
}

// Years is a term for vendors that sell whole years, up to the longest; 365 days count as
// one.
func Years(t vendors.Term, longest int) (int, error) {
	if t.Years != 0 && t.Days != 0 || t.Days%365 != 0 {
		return 0, fmt.Errorf("term: must be whole years, 1y to %dy, got %dy %dd", longest, t.Years, t.Days)
	}
	years := t.Years + t.Days/365
	if years < 1 || years > longest {
		return 0, fmt.Errorf("term: must be 1y to %dy, got %dy", longest, years)
	}
	return years, nil
}

// FileField reads a file for the field of a form. Its name must end in one of the kinds, and
// it must have something in it, up to the size in bytes. The vendor gets to know its kind,
// and neither its name nor its folder.
func FileField(field, path string, size int64, kinds ...string) (Field, error) {
	extension := strings.ToLower(filepath.Ext(path))
	if !slices.Contains(kinds, strings.TrimPrefix(extension, ".")) {
		return Field{}, fmt.Errorf("%s is not of the kind %s", path, strings.Join(kinds, ", "))
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Field{}, err
	case !info.Mode().IsRegular():
		return Field{}, fmt.Errorf("%s is not a file", path)
	case info.Size() == 0 || info.Size() > size:
		return Field{}, fmt.Errorf("%s has %d bytes, and must have 1 to %d", path, info.Size(), size)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return Field{}, err
	}
	return Field{Name: field, FileName: field + extension, Value: string(content)}, nil
}

// NoPapers refuses papers of identity where the vendor has no field for them. A number that is
// sent nowhere would make people believe that the vendor has it.
func NoPapers(cfg vendors.OrderConfig) error {
	for _, c := range []struct {
		block string
		of    *vendors.Contact
	}{{"contact", &cfg.Contact}, {"tech_contact", cfg.Tech}, {"billing_contact", cfg.Billing}} {
		if c.of != nil && c.of.IDType+c.of.IDNumber != "" {
			return fmt.Errorf("%s: this vendor takes neither id_type nor id_number", c.block)
		}
	}
	if org := cfg.Organization; org != nil && org.IDType != "" {
		return fmt.Errorf("organization: this vendor takes no id_type")
	}
	return nil
}
