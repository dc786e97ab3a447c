// Package proof proves control of the names of an order to the CA: by validation files
// or by DNS records, whichever the order was placed with. The files and records
// themselves are the matter of package dcv; this package turns what a vendor asks for
// into them, and knows what it means if they cannot be found.
package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/check"
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

	// Challenges are what the vendor asks for. They are empty until it has told, unless
	// they can be computed before that.
	Challenges []vendors.Challenge

	// Trial is what is presented, and looked for, as long as Challenges are empty. See
	// [Trial]. If there are Challenges, it is removed, in case a process that has ended
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
	// Present makes the proof findable, until CleanUp. It is quick: whether the CA would
	// find it by now is for Wait to say. What was presented under the ID before is
	// replaced. After an error, that is still there, and nothing that this call added is.
	Present(ctx context.Context, p Proof) error

	// Wait looks for what was presented as the CA will, until it is found or a bound
	// of its own is reached. An error says that the CA would not find it, or that DNS
	// forbids the CA to issue; what counts as such is a matter of the [Mode]. If ctx is
	// done, the error is its cause.
	Wait(ctx context.Context, p Proof) error

	// CleanUp removes what the proof lists, and whatever else was presented under its
	// ID in this process. It needs no Present that succeeded, works when ctx is done,
	// and does no harm when it is repeated. It logs what it cannot remove.
	CleanUp(ctx context.Context, p Proof)

	// Seen tells in a few words who came to look. It is empty if that cannot be known.
	Seen(p Proof) string
}

// Explainer finds out why the CA has not validated names.
type Explainer interface {
	// Explain returns a diagnosis for each of these names of the proof that there is time for, as far
	// as can be seen from here. visits returns those for a name, to all servers of the cluster.
	Explain(ctx context.Context, p Proof, names []string, visits func(name string) []check.Visit) []check.Diagnosis
}

// Mode is what Wait makes of a proof that cannot be found.
type Mode string

// The modes. A wrong answer is one that the CA must be expected to get, too.
const (
	ModeDefault Mode = ""       // a wrong answer is an error, no answer a warning, unless another address has it
	ModeStrict  Mode = "strict" // both are errors
	ModeWarn    Mode = "warn"   // both are warnings
	ModeOff     Mode = "off"    // Wait does not look; of names that DNS does not have, it warns
)

// stops reports whether something that was not found is an error. wrong means that there was a
// wrong answer, or another reason to expect that the CA will fail, too.
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

	// Resolvers are asked for the names and for CAA records: hosts with an optional port.
	// None means those of the system.
	Resolvers []string

	// Store is where validation files are served from. Nil means dcv.Live.
	Store *dcv.Store

	// Group is that of all challenges, see [dcv.Challenge].
	Group string

	// Storage is where other instances of a cluster learn of validation files. It may
	// be nil.
	Storage certmagic.Storage

	// Port tells where this instance serves validation files over HTTP. Test services
	// that do not say where they fetch are expected to fetch from there. It is not
	// called before Wait, because the port is not known while a config is being
	// provisioned. Nil means the standard port.
	Port func() int

	// Listen is called when there is a file to be fetched over HTTP, and sees to it
	// that the port is served, if it is not yet, until release is called. Present does
	// not fail if Listen does, for the port may be served elsewhere. Nil means that the
	// port is served already.
	Listen func(ctx context.Context) (release func(), err error)

	// DNS adds and removes records. Nil means that there is no provider, so that no
	// record can be presented.
	DNS *dcv.DNS

	// Override is the name of all records, if the names where the CA looks lead to it.
	// It may be empty.
	Override string

	// Dial makes the connections that look for files, and Exchange asks resolvers. Nil means the
	// network.
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Exchange func(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error)

	// Logger may be nil.
	Logger *zap.Logger
}

// ByMethod leaves each proof to its method. An order keeps the method that it was
// placed with, whatever is configured meanwhile. Make one with [New].
type ByMethod struct {
	mode    Mode
	names   nameCheck
	caa     caaCheck
	places  placeCheck
	files   *files
	records *records // nil without a DNS provider
	logger  *zap.Logger
}

// New returns the prover of one config. It must be closed.
func New(c Config) *ByMethod {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	resolvers := check.Resolvers{List: c.Resolvers, Exchange: c.Exchange}
	m := &ByMethod{
		mode: c.Mode, logger: c.Logger,
		names:  nameCheck{mode: c.Mode, anyName: c.About.AnyName, resolvers: resolvers, logger: c.Logger},
		caa:    caaCheck{mode: c.Mode, anyName: c.About.AnyName, identities: c.Identities, resolvers: resolvers, logger: c.Logger},
		places: placeCheck{mode: c.Mode, about: c.About, override: c.Override, resolvers: resolvers, logger: c.Logger},
		files: &files{
			mode: c.Mode, about: c.About, store: cmp.Or(c.Store, dcv.Live), group: c.Group, storage: c.Storage,
			port: c.Port, listen: c.Listen, dial: c.Dial, logger: c.Logger,
		},
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
	if err != nil {
		return err
	}
	// All of it is looked at, so that one message tells everything that has to be fixed.
	var forbidden, astray error
	var looks sync.WaitGroup
	if m.mode != ModeOff {
		looks.Go(func() { forbidden = m.caa.check(ctx, p) })
		if by == m.records {
			looks.Go(func() { astray = m.places.check(ctx, p) })
		}
	}
	known, gone := m.names.check(ctx, p)
	looks.Wait()
	if m.mode == ModeOff {
		return gone
	}
	var missing error
	if by == m.files {
		missing = m.files.wait(ctx, p, known)
	} else if gone == nil && forbidden == nil && astray == nil { // it may take long until a record is seen
		missing = by.Wait(ctx, p)
	}
	if err = allOf(gone, forbidden, astray, missing); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// problems are all that keeps the CA from validating.
type problems []error

// maxProblems bounds the problems that one message lists. An order can have hundreds of names.
const maxProblems = 8

// allOf joins the errors that are not nil, without duplicates; nil if there are none.
func allOf(some ...error) error {
	var list problems
	for _, err := range some {
		var more problems
		if !errors.As(err, &more) && err != nil {
			more = problems{err}
		}
		for _, err := range more {
			if !slices.ContainsFunc(list, func(told error) bool { return told.Error() == err.Error() }) {
				list = append(list, err)
			}
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list
}

func (p problems) Error() string {
	texts := make([]string, min(len(p), maxProblems))
	for i := range texts {
		texts[i] = fmt.Sprintf("%d. %v", i+1, p[i])
	}
	text := fmt.Sprintf("%d problems: %s", len(p), strings.Join(texts, "; "))
	if more := len(p) - maxProblems; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// Unwrap returns each of them.
func (p problems) Unwrap() []error { return p }

// CleanUp implements [Prover].
func (m *ByMethod) CleanUp(ctx context.Context, p Proof) {
	by, err := m.prover(p)
	if err != nil {
		m.logger.Warn("DNS records of an order are left behind; remove them by hand", zap.Strings("identifiers", p.Names), zap.Error(err))
		return
	}
	by.CleanUp(ctx, p)
}

// Remove is CleanUp, and returns the DNS records that it cannot remove.
func (m *ByMethod) Remove(ctx context.Context, p Proof) (left []dcv.Record) {
	if p.Method == vendors.MethodDNS && m.records != nil {
		return m.records.cleanUp(ctx, p)
	}
	m.CleanUp(ctx, p)
	return nil
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
	_ Prover    = (*ByMethod)(nil)
	_ Explainer = (*ByMethod)(nil)
	_ Prover    = (*files)(nil)
	_ Prover    = (*records)(nil)
)
