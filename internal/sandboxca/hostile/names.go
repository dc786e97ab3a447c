package hostile

import (
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/digicert"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/howssl"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/quirk"
)

// What users of the whole sandbox need from its parts, in one package.
type (
	Core           = sandboxca.Config
	Account        = sandboxca.Account
	Charge         = sandboxca.Charge
	Product        = sandboxca.Product
	OrderInfo      = sandboxca.OrderInfo
	Fetch          = sandboxca.Fetch
	Fault          = fault.Fault
	FaultKind      = fault.FaultKind
	Phase          = fault.Phase
	Quirks         = quirk.Quirks
	DigiCertQuirks = digicert.Quirks
	HowSSLQuirks   = howssl.Quirks
	HowSSLFields   = howssl.Fields
)

// See packages sandboxca and fault.
const (
	StatusPending   = sandboxca.StatusPending
	StatusComplete  = sandboxca.StatusComplete
	StatusCancelled = sandboxca.StatusCancelled
	StatusFailed    = sandboxca.StatusFailed
	StatusReissued  = sandboxca.StatusReissued
	StatusRevoked   = sandboxca.StatusRevoked

	KindPlace   = sandboxca.KindPlace
	KindRenew   = sandboxca.KindRenew
	KindReissue = sandboxca.KindReissue
	KindReplace = sandboxca.KindReplace

	DV = sandboxca.DV
	OV = sandboxca.OV
	EV = sandboxca.EV

	ResultOK = sandboxca.ResultOK
	Banner   = sandboxca.Banner

	BeforeEffect = fault.BeforeEffect
	AfterEffect  = fault.AfterEffect

	HTTPStatus  = fault.HTTPStatus
	HTML        = fault.HTML
	Empty       = fault.Empty
	CutOff      = fault.CutOff
	BadJSON     = fault.BadJSON
	Hang        = fault.Hang
	Reset       = fault.Reset
	Huge        = fault.Huge
	APICode     = fault.APICode
	Redirect    = fault.Redirect
	ExtraFields = fault.ExtraFields
	Shuffled    = fault.Shuffled
	Strange     = fault.Strange
	Delay       = fault.Delay
)
