package issuer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// records proves control of names by DNS records. It is the prover of an issuer for
// the life of one config.
type records struct {
	dns      *dcv.DNS
	cname    bool   // whether records that are not known yet will be of this type, not TXT
	override string // the name of all records, if not empty
	mode     probeMode
	logger   *zap.Logger

	mu   sync.Mutex
	live map[string]*published // by ID of the proof
}

// published is what is in DNS for one proof.
type published struct {
	records []dcv.Record
	fresh   []dcv.Record // added by this process, and not waited for yet
}

// wanted are the records of a proof. Those in extra are good to have: Sectigo adds the
// apex to an order for its www name if it can be proven, too (Sectigo, "Domain Control
// Validation (DCV) of www subdomains and base domain names"). The reverse needs no
// record, because the CA looks at the parents of each name.
type wanted struct {
	needed, extra []dcv.Record
}

func (w wanted) all() []dcv.Record { return slices.Concat(w.needed, w.extra) }

// wanted turns what a vendor asks for into records. Challenges for other methods are
// left out; a vendor may send several kinds.
func (r *records) wanted(p proof) (wanted, error) {
	var w wanted
	for _, ch := range p.challenges {
		if ch.Method != vendors.MethodDNS {
			continue
		}
		hosts := p.names
		if ch.Name != "" {
			hosts = []string{ch.Name}
		}
		for _, host := range hosts {
			record, err := r.record(host, ch)
			if err != nil {
				return wanted{}, fmt.Errorf("the vendor's record for %s: %w", host, err)
			}
			if !slices.Contains(w.needed, record) {
				w.needed = append(w.needed, record)
			}
			if apex, ok := strings.CutPrefix(host, "www."); ok {
				if record, err := r.record(apex, ch); err == nil && !slices.Contains(w.extra, record) {
					w.extra = append(w.extra, record)
				}
			}
		}
	}
	w.extra = slices.DeleteFunc(w.extra, func(record dcv.Record) bool { return slices.Contains(w.needed, record) })
	if len(w.needed) == 0 && len(p.challenges) > 0 {
		return wanted{}, errors.New("the vendor asks for proofs of control, but for no DNS record")
	}
	return w, nil
}

func (r *records) record(host string, ch vendors.Challenge) (dcv.Record, error) {
	if r.override != "" {
		return dcv.NewRecord(r.override, "", ch.RecordType, ch.RecordValue)
	}
	return dcv.NewRecord(host, ch.RecordName, ch.RecordType, ch.RecordValue)
}

// Publish adds the records. It does not wait until they can be seen; see Settle.
func (r *records) Publish(ctx context.Context, p proof) error {
	w, err := r.wanted(p)
	if err != nil {
		return err
	}
	var added, fresh []dcv.Record
	for i, record := range w.all() {
		isNew, err := r.dns.Present(ctx, record)
		if isNew {
			added = append(added, record)
		}
		switch needed := i < len(w.needed); {
		case err == nil && isNew && needed:
			fresh = append(fresh, record)
		case err != nil && needed:
			r.remove(ctx, added)
			return err
		case err != nil:
			r.logger.Debug("adding a DNS record failed that is of use, but not needed", zap.Stringer("record", record), zap.Error(err))
		}
	}
	old := r.replace(p.id, w.all(), fresh)
	r.remove(ctx, slices.DeleteFunc(old, func(record dcv.Record) bool { return slices.Contains(w.all(), record) }))
	return nil
}

// replace notes what is in DNS for a proof, and returns what was.
func (r *records) replace(id string, list, fresh []dcv.Record) []dcv.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var old []dcv.Record
	if before := r.live[id]; before != nil {
		old = slices.Clone(before.records)
		for _, record := range before.fresh {
			if slices.Contains(list, record) && !slices.Contains(fresh, record) {
				fresh = append(fresh, record)
			}
		}
	}
	delete(r.live, id)
	if len(list) > 0 {
		if r.live == nil {
			r.live = make(map[string]*published)
		}
		r.live[id] = &published{list, fresh}
	}
	return old
}

// Settle waits until the records that this process has added can be seen, so that the
// CA, which may remember what it did not find, is not asked to look too early. If the
// wait is in vain, the CA may succeed all the same.
func (r *records) Settle(ctx context.Context, p proof) {
	r.mu.Lock()
	var fresh []dcv.Record
	if now := r.live[p.id]; now != nil {
		fresh = slices.Clone(now.fresh)
	}
	r.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	if err := r.await(ctx, p.id, fresh); err != nil && ctx.Err() == nil {
		r.logger.Warn("a DNS record for validation cannot be seen yet", zap.Strings("identifiers", p.names), zap.Error(err))
	}
}

// await waits for records, and once only unless ctx ends it.
func (r *records) await(ctx context.Context, id string, list []dcv.Record) error {
	err := r.dns.Await(ctx, list)
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.live[id]; now != nil && ctx.Err() == nil {
		now.fresh = slices.DeleteFunc(now.fresh, func(record dcv.Record) bool { return slices.Contains(list, record) })
	}
	return err
}

// Probe waits until the records can be seen. Where the CA's are not known yet, it
// adds one of its own and takes it away again.
func (r *records) Probe(ctx context.Context, p proof) error {
	if r.mode == probeOff {
		return nil
	}
	if len(p.challenges) == 0 {
		p.id += "-probe"
		own := vendors.Challenge{Method: vendors.MethodDNS, RecordName: "_" + p.id, RecordType: "TXT", RecordValue: newUnique()}
		if r.cname {
			// Not every provider can add every type, and the paid order is too late
			// to find out. Nothing resolves below invalid (RFC 6761, section 6.4).
			own.RecordType, own.RecordValue = "CNAME", own.RecordValue+".invalid"
		}
		p.challenges = []vendors.Challenge{own}
		defer r.Withdraw(ctx, p)
		if err := r.Publish(ctx, p); err != nil {
			return err
		}
	}
	w, err := r.wanted(p)
	if err != nil {
		return err
	}
	err = r.await(ctx, p.id, w.needed)
	problem, ok := errors.AsType[*dcv.PropagationError](err)
	switch {
	case !ok:
		return err
	case r.mode == probeStrict || r.mode == probeDefault && problem.Wrong():
		return err
	}
	r.logger.Warn("a DNS record for validation cannot be seen from here; the CA may succeed all the same",
		zap.Strings("identifiers", p.names), zap.Error(err))
	return nil
}

// Withdraw takes the records away.
func (r *records) Withdraw(ctx context.Context, p proof) {
	list := r.replace(p.id, nil, nil)
	// The proof tells what a process that is gone has added. Where it cannot be read,
	// nothing was.
	if w, err := r.wanted(p); err == nil {
		for _, record := range w.all() {
			if !slices.Contains(list, record) {
				list = append(list, record)
			}
		}
	}
	r.remove(ctx, list)
}

func (r *records) remove(ctx context.Context, list []dcv.Record) {
	for _, record := range list {
		if err := r.dns.Remove(ctx, record); err != nil {
			r.logger.Warn("removing a DNS record failed; remove it by hand", zap.Stringer("record", record), zap.Error(err))
		}
	}
}

// Seen tells nothing: the visits are to the zone's name servers.
func (*records) Seen(proof) string { return "" }

// provers leaves each proof to the prover of its method. An order keeps the method it
// was placed with, whatever is configured meanwhile.
type provers struct {
	files   *files
	records *records // nil without a DNS provider
}

var errNoRecords = errors.New("the order is to be validated by DNS records, but no DNS provider is configured any more; see dcv dns")

// Publish implements prover.
func (v provers) Publish(ctx context.Context, p proof) error {
	switch {
	case p.method != vendors.MethodDNS:
		return v.files.Publish(ctx, p)
	case v.records == nil:
		return errNoRecords
	}
	return v.records.Publish(ctx, p)
}

// Probe implements prover.
func (v provers) Probe(ctx context.Context, p proof) error {
	switch {
	case p.method != vendors.MethodDNS:
		return v.files.Probe(ctx, p)
	case v.records == nil:
		return errNoRecords
	}
	if v.files.mode != probeOff {
		if err := v.files.checkCAA(ctx, p.names); err != nil {
			return err
		}
	}
	return v.records.Probe(ctx, p)
}

// Settle implements settler.
func (v provers) Settle(ctx context.Context, p proof) {
	if p.method == vendors.MethodDNS && v.records != nil {
		v.records.Settle(ctx, p)
	}
}

// Withdraw implements prover.
func (v provers) Withdraw(ctx context.Context, p proof) {
	switch {
	case p.method != vendors.MethodDNS:
		v.files.Withdraw(ctx, p)
	case v.records == nil:
		v.files.logger.Warn("DNS records of an order stay behind", zap.Strings("identifiers", p.names), zap.Error(errNoRecords))
	default:
		v.records.Withdraw(ctx, p)
	}
}

// Seen implements prover.
func (v provers) Seen(p proof) string {
	if p.method != vendors.MethodDNS {
		return v.files.Seen(p)
	}
	return ""
}

// Interface guards
var (
	_ prover  = (*records)(nil)
	_ prover  = provers{}
	_ settler = provers{}
)
