// Package proof proves control of the names of an order to the CA: by validation files
// or by DNS records, whichever the order was placed with. The files and records
// themselves are the matter of package dcv; this package turns what a vendor asks for
// into them, and knows what it means if they cannot be found.
package proof

import (
	"context"
	"errors"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// Proof is what proves control of the names of one order or reissue.
type Proof struct {
	// ID is that of the request, and no other's. Presenting something else under the
	// same ID replaces what there was.
	ID string

	// Names are those of the order.
	Names []string

	// Method is the one that the order was placed with. What a vendor asks for by
	// other methods is left out.
	Method vendors.Method

	// Challenges are what the vendor asks for. They are empty until it told, unless
	// they can be computed before.
	Challenges []vendors.Challenge

	// Trial is what is presented, and looked for, as long as Challenges are empty. See
	// [Trial]. Beside Challenges it is taken away, in case a process that has ended
	// presented it. It may be empty.
	Trial []vendors.Challenge
}

// challenges are those to present.
func (p Proof) challenges() []vendors.Challenge {
	if len(p.Challenges) > 0 {
		return p.Challenges
	}
	return p.Trial
}

// Prover presents proofs of control. Its methods may be called concurrently.
type Prover interface {
	// Present makes the proof findable, until CleanUp. It is quick: that the CA would
	// find it by now is for Wait to say. What the ID had presented before is replaced.
	// With an error, that stays, and nothing that this call added does.
	Present(ctx context.Context, p Proof) error

	// Wait looks for what was presented as the CA will, until it is found or a bound
	// of its own is reached. An error says that the CA would not find it, or that DNS
	// forbids the CA to issue; what counts as such is a matter of the [Mode]. If ctx is
	// done, the error is its cause.
	Wait(ctx context.Context, p Proof) error

	// CleanUp takes away what the proof tells, and whatever else was presented under
	// its ID in this process. It needs no Present that succeeded, works when ctx is
	// done, and does no harm when it is repeated. What it cannot take away it logs.
	CleanUp(ctx context.Context, p Proof)

	// Seen tells in a few words who came to look. It is empty if that cannot be known.
	Seen(p Proof) string
}

// Mode is what Wait makes of a proof that cannot be found.
type Mode string

// The modes. A wrong answer is one that the CA must be expected to get, too.
const (
	ModeDefault Mode = ""       // a wrong answer is an error, no answer a warning
	ModeStrict  Mode = "strict" // both are errors
	ModeWarn    Mode = "warn"   // both are warnings
	ModeOff     Mode = "off"    // Wait does nothing
)

// stops reports whether something that was not found is an error. It is wrong if there
// was an answer.
func (m Mode) stops(wrong bool) bool { return m == ModeStrict || m == ModeDefault && wrong }

// Config is what a [ByMethod] needs to know. About must be set; the other fields have
// useful zero values, but for those of the methods in use.
type Config struct {
	// Mode is what a proof that cannot be found means.
	Mode Mode

	// About is what the vendor says about itself.
	About vendors.Description

	// Identities are the names by which the CA recognizes itself in CAA records. If
	// there are none, these records are not looked at.
	Identities []string

	// Resolvers are asked for CAA records: hosts with an optional port. None means
	// those of the system.
	Resolvers []string

	// Storage is where other instances of a cluster learn of validation files. It may
	// be nil.
	Storage certmagic.Storage

	// Port tells where this instance serves validation files over HTTP. Test services
	// that do not say where they fetch are expected to fetch from there. It is first
	// called by Wait, because nobody knows while a config is being provisioned. Nil
	// means the standard port.
	Port func() int

	// Listen is called when there is a file to be fetched over HTTP, and sees to it
	// that the port is served, if nothing does so yet, until release is called. That
	// it cannot be is no error of Present, for it may be served elsewhere. Nil means
	// that it is served.
	Listen func(ctx context.Context) (release func(), err error)

	// DNS adds and removes records. Nil means that there is no provider, so that no
	// record can be presented.
	DNS *dcv.DNS

	// Override is the name of all records, if the names where the CA looks lead to it.
	// It may be empty.
	Override string

	// Logger may be nil.
	Logger *zap.Logger
}

// ByMethod leaves each proof to its method. An order keeps the method that it was
// placed with, whatever is configured meanwhile. Make one with [New].
type ByMethod struct {
	mode    Mode
	caa     caaCheck
	files   *files
	records *records // nil without a DNS provider
	logger  *zap.Logger
}

// New returns the prover of one config. It must be closed.
func New(c Config) *ByMethod {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	m := &ByMethod{
		mode: c.Mode, logger: c.Logger,
		caa:   caaCheck{mode: c.Mode, anyName: c.About.AnyName, identities: c.Identities, resolvers: c.Resolvers, logger: c.Logger},
		files: &files{mode: c.Mode, about: c.About, storage: c.Storage, port: c.Port, listen: c.Listen, logger: c.Logger},
	}
	if c.DNS != nil {
		m.records = &records{dns: c.DNS, override: c.Override, mode: c.Mode, logger: c.Logger}
	}
	return m
}

// Close lets go of the port. It cleans nothing up: what is presented is for orders that
// are still pending, with which the next config goes on.
func (m *ByMethod) Close() { m.files.close() }

var errNoProvider = errors.New("the order is to be validated by DNS records, but no DNS provider is configured any more; see dcv dns")

func (m *ByMethod) prover(p Proof) (Prover, error) {
	switch {
	case p.Method != vendors.MethodDNS:
		return m.files, nil
	case m.records == nil:
		return nil, errNoProvider
	}
	return m.records, nil
}

// Present implements [Prover].
func (m *ByMethod) Present(ctx context.Context, p Proof) error {
	by, err := m.prover(p)
	if err != nil {
		return err
	}
	return by.Present(ctx, p)
}

// Wait implements [Prover].
func (m *ByMethod) Wait(ctx context.Context, p Proof) error {
	by, err := m.prover(p)
	if err != nil || m.mode == ModeOff {
		return err
	}
	if err := m.caa.check(ctx, p); err != nil {
		return err
	}
	return by.Wait(ctx, p)
}

// CleanUp implements [Prover].
func (m *ByMethod) CleanUp(ctx context.Context, p Proof) {
	by, err := m.prover(p)
	if err != nil {
		m.logger.Warn("DNS records of an order stay behind; remove them by hand", zap.Strings("identifiers", p.Names), zap.Error(err))
		return
	}
	by.CleanUp(ctx, p)
}

// Seen implements [Prover].
func (m *ByMethod) Seen(p Proof) string {
	by, err := m.prover(p)
	if err != nil {
		return ""
	}
	return by.Seen(p)
}

// Check judges without presenting anything whether what the vendor asks for can be
// presented.
func Check(p Proof) error {
	if p.Method == vendors.MethodDNS {
		_, err := new(records).wanted(p, p.Challenges)
		return err
	}
	_, err := fileChallenges(p)
	return err
}

// Interface guards
var (
	_ Prover = (*ByMethod)(nil)
	_ Prover = (*files)(nil)
	_ Prover = (*records)(nil)
)
