package kit

import (
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
