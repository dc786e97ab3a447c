package proof

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// explainWithin bounds the look at one name: a resolver that does not answer makes each step long.
const explainWithin = time.Minute

// explainAllWithin bounds the looks at all names of an order, which can have hundreds. The order
// is not followed meanwhile.
const explainAllWithin = 2 * time.Minute

// Explain implements [Explainer].
func (m *ByMethod) Explain(ctx context.Context, p Proof, names []string, visits func(name string) []check.Visit) []check.Diagnosis {
	ctx, cancel := context.WithTimeout(ctx, explainAllWithin)
	defer cancel()
	found := make([]check.Diagnosis, len(names))
	look := func(i int) error {
		if ctx.Err() != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, explainWithin)
		defer cancel()
		q := m.caa.question(p, names[i])
		if p.Method == vendors.MethodDNS {
			found[i] = m.explainRecord(ctx, p, q)
			return nil
		}
		found[i] = m.files.explain(ctx, p, q, m.names, visits(names[i]))
		return nil
	}
	indices := make([]int, len(names))
	for i := range indices {
		indices[i] = i
	}
	_ = forAll(indices, look, func(int, error) error { return nil })
	return slices.DeleteFunc(found, func(d check.Diagnosis) bool { return d.Cause == "" })
}

// explainRecord finds out why the CA has not validated a name by a DNS record.
func (m *ByMethod) explainRecord(ctx context.Context, p Proof, q dcv.CAAQuestion) check.Diagnosis {
	d := check.Diagnosis{Cause: check.CauseRecord, Name: q.Name}
	if m.records == nil {
		d.Message, d.Advice = errNoProvider.Error(), "configure a DNS provider"
		return d
	}
	if !m.names.anyName {
		if d, known := m.names.resolvers.ExplainZone(ctx, q); known {
			return d
		}
	}
	p.Names = []string{q.Name}
	base := strings.TrimPrefix(q.Name, "*.")
	asked := slices.DeleteFunc(slices.Clone(p.Challenges), func(ch vendors.Challenge) bool {
		return ch.Method != vendors.MethodDNS || ch.Name != "" && strings.TrimPrefix(ch.Name, "*.") != base
	})
	w, err := m.records.wanted(p, asked)
	switch {
	case err != nil:
	case len(w.needed) == 0:
		err = errNoRecord
	case m.records.dns.PropagationTimeout < 0:
		err = errNotLooked
	default:
		err = m.records.dns.Look(ctx, w.needed)
	}
	if missing, ok := errors.AsType[*dcv.PropagationError](err); ok && missing.Wrong() {
		d.Message = "the record " + missing.Record.String() + " is not everywhere: " + strings.Join(missing.Answers, "; ")
		d.Advice = "look at the DNS provider: what it has added must come to all name servers of the zone"
		return d
	}
	if err == nil && !m.names.anyName {
		_, err := m.names.resolvers.Place(ctx, Place(m.places.about, m.places.override, p, q.Name))
		if astray, ok := errors.AsType[*check.PlaceError](err); ok {
			d.Message, d.Advice = astray.What, astray.Advice
			return d
		}
	}
	d.Cause, d.Message = check.CauseUndecided, "the record is where the CA looks, as far as can be seen from here"
	if err != nil {
		d.Message = "nothing is known to be wrong, but the record could not be looked for: " + err.Error()
	}
	d.Advice = "wait; if nothing changes within a day, ask the vendor about the order"
	return d
}

var errNotLooked = errors.New("propagation_timeout says not to")

// explain finds out why the CA has not validated a name by a file.
func (f *files) explain(ctx context.Context, p Proof, q dcv.CAAQuestion, names nameCheck, visits []check.Visit) check.Diagnosis {
	site := check.Site{
		Name: q.Name, Resolvers: names.resolvers, AnyName: names.anyName,
		Prober: dcv.Prober{Port: f.fetchPort(p.Method), HTTPS: p.Method == vendors.MethodHTTPS, Dial: f.dial},
	}
	list, _ := fileChallenges(p) // what cannot be presented is reported elsewhere
	for i := range list {
		if f.mode != ModeOff && slices.Contains(list[i].Hosts, q.Name) {
			site.File = &list[i]
			break
		}
	}
	f.mu.Lock()
	var deaf error
	if own := f.live[p.ID]; own != nil {
		deaf = own.deaf
	}
	f.mu.Unlock()
	return site.Explain(ctx, q, deaf, visits)
}
