package app

import (
	"reflect"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// The TLS app alone knows which names certmagic manages: they come from routes, from the
// certificate loader "automate" and from other apps, less those that a wildcard covers.
// It keeps them in fields that nobody else may see, and offers no way to ask. So they are
// read by reflection, which may look at keys of unexported maps though it may not touch
// them. TestFieldsOfTheTLSApp fails when the fields move; callers then do without them.

// managing returns the names that the TLS app manages. It is false if this cannot be
// known. It must be called from the goroutine that loads the config, like the event
// "started", because nothing else guards the map.
func managing(tlsApp *caddytls.TLS) ([]string, bool) { return keysOf(tlsApp, "managing") }

// automated returns the names of the certificate loader "automate".
func automated(tlsApp *caddytls.TLS) []string {
	names, _ := keysOf(tlsApp, "automateNames")
	return names
}

func keysOf(tlsApp *caddytls.TLS, field string) ([]string, bool) {
	m := reflect.ValueOf(tlsApp).Elem().FieldByName(field)
	if !m.IsValid() || m.Kind() != reflect.Map || m.Type().Key().Kind() != reflect.String {
		return nil, false
	}
	var keys []string
	for it := m.MapRange(); it.Next(); {
		keys = append(keys, it.Key().String())
	}
	return keys, true
}
