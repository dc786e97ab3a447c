package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
)

// Duration is a duration as text, such as "1h30m".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = Duration(parsed)
	return err
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Fault is a fault as JSON, see fault.Fault.
type Fault struct {
	Endpoint   string   `json:"endpoint,omitempty"` // the name of the call; empty means any
	When       string   `json:"when,omitempty"`     // before (the default) or after the effect
	Kind       string   `json:"kind"`
	Status     int      `json:"status,omitempty"`
	Code       int      `json:"code,omitempty"`   // for api
	Errors     any      `json:"errors,omitempty"` // for api
	RetryAfter string   `json:"retry_after,omitempty"`
	Body       string   `json:"body,omitempty"` // for status and redirect
	Seed       uint64   `json:"seed,omitempty"` // for shuffled and strange
	Delay      Duration `json:"delay,omitempty"`
	Skip       int      `json:"skip,omitempty"`
	Times      int      `json:"times,omitempty"`
}

// kinds are the names of what can go wrong.
var kinds = map[string]fault.FaultKind{
	"status": fault.HTTPStatus, "html": fault.HTML, "empty": fault.Empty, "cut-off": fault.CutOff,
	"bad-json": fault.BadJSON, "hang": fault.Hang, "reset": fault.Reset, "huge": fault.Huge, "api": fault.APICode,
	"redirect": fault.Redirect, "extra-fields": fault.ExtraFields, "shuffled": fault.Shuffled,
	"strange": fault.Strange, "delay": fault.Delay,
}

func (f Fault) fault() (fault.Fault, error) {
	made := fault.Fault{
		Endpoint: f.Endpoint, Status: f.Status, Code: f.Code, Errors: f.Errors, RetryAfter: f.RetryAfter,
		Body: []byte(f.Body), Seed: f.Seed, Delay: time.Duration(f.Delay), Skip: f.Skip, Times: f.Times,
	}
	kind, known := kinds[f.Kind]
	if !known {
		return made, fmt.Errorf("kind %q is not one of %s", f.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	made.Kind = kind
	switch f.When {
	case "", "before":
	case "after":
		made.Phase = fault.AfterEffect
	default:
		return made, fmt.Errorf("when %q is neither before nor after", f.When)
	}
	if f.Status != 0 && (f.Status < 100 || f.Status > 999) {
		return made, fmt.Errorf("status %d is not an HTTP status", f.Status)
	}
	return made, nil
}
