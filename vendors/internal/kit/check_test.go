package kit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestMissing(t *testing.T) {
	c := vendors.Contact{FirstName: "Ada", LastName: " ", City: "London"}
	if err := Missing("contact", c.Fields(), "first_name", "city"); err != nil {
		t.Error(err)
	}
	err := Missing("contact", c.Fields(), "email", "first_name", "last_name")
	if err == nil || err.Error() != "contact: missing last_name, email" {
		t.Errorf("err = %v", err)
	}
}

func TestCountry(t *testing.T) {
	for country, ok := range map[string]bool{"": true, "gb": true, "DE": true, "1x": false, "Germany": false, "d": false, "ß": false} {
		if err := Country("contact", country); (err == nil) != ok {
			t.Errorf("%q: %v", country, err)
		}
	}
}

func TestYears(t *testing.T) {
	for term, want := range map[vendors.Term]int{
		{Years: 1}: 1, {Years: 6}: 6, {Days: 365}: 1, {Days: 730}: 2,
		{}: 0, {Years: 7}: 0, {Years: -1}: 0, {Days: 90}: 0, {Years: 1, Days: 365}: 0, {Days: -365}: 0,
	} {
		got, err := Years(term, 6)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%+v: %d, %v", term, got, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "term: must be ") {
			t.Errorf("%+v: %v", term, err)
		}
	}
}

func TestFileField(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a.pdf": "abcd", "B.JPG": "b", "empty.pdf": "", "long.pdf": "12345", "a.exe": "x", "none": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.pdf"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Field{
		"a.pdf": {Name: "pic", FileName: "pic.pdf", Value: "abcd"},
		"B.JPG": {Name: "pic", FileName: "pic.jpg", Value: "b"},
	} {
		if got, err := FileField("pic", filepath.Join(dir, name), 4, "pdf", "jpg"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"empty.pdf": "has 0 bytes", "long.pdf": "has 5 bytes, and must have 1 to 4", "dir.pdf": "is not a file",
		"a.exe": "is not of the kind pdf, jpg", "none": "is not of the kind", "missing.pdf": "no such file",
	} {
		_, err := FileField("pic", filepath.Join(dir, name), 4, "pdf", "jpg")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestNoPapers(t *testing.T) {
	if err := NoPapers(vendors.OrderConfig{Tech: new(vendors.Contact), Organization: &vendors.Organization{RegistrationNumber: "1"}}); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]vendors.OrderConfig{
		"contact:":         {Contact: vendors.Contact{IDType: "SFZ"}},
		"tech_contact:":    {Tech: &vendors.Contact{IDNumber: "1"}},
		"billing_contact:": {Billing: &vendors.Contact{IDNumber: "1"}},
		"organization:":    {Organization: &vendors.Organization{IDType: "OTHERS"}},
	} {
		if err := NoPapers(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s %v", want, err)
		}
	}
}
