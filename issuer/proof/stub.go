package proof

import (
	"context"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

type Proof struct {
	ID         string
	Names      []string
	Method     vendors.Method
	Challenges []vendors.Challenge
	Trial      []vendors.Challenge
}

type Prover interface {
	Present(context.Context, Proof) error
	Wait(context.Context, Proof) error
	CleanUp(context.Context, Proof)
	Seen(Proof) string
}

func Trial(id string, method vendors.Method, d vendors.Description) []vendors.Challenge { return nil }
func Check(Proof) error                                                                 { return nil }

type Mode string

const (
	ModeDefault Mode = ""
	ModeStrict  Mode = "strict"
	ModeWarn    Mode = "warn"
	ModeOff     Mode = "off"
)
