package proof

import (
	"reflect"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// SharedProvider returns the DNS provider that the TLS app has for all issuers (the
// global option dns), or nil. The app loads it before any issuer.
//
// Caddy keeps it in a field that only its own issuers can read, and has cleared the
// JSON that it was made from, so it is read by reflection, and the pointer in it
// unsafely, as values of unexported fields cannot be had otherwise. A method of the
// TLS app that returns the provider would make this file needless. If another version
// of Caddy keeps it elsewhere, the test of this function fails, and users must name the
// provider in the issuer.
func SharedProvider(tlsApp *caddytls.TLS) any {
	if tlsApp == nil {
		return nil
	}
	field := reflect.ValueOf(tlsApp).Elem().FieldByName("dns")
	if !field.IsValid() || field.Kind() != reflect.Interface || field.IsNil() || field.Elem().Kind() != reflect.Pointer {
		return nil
	}
	return reflect.NewAt(field.Elem().Type().Elem(), field.Elem().UnsafePointer()).Interface()
}
