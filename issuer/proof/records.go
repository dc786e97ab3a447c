package proof

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

// records proves control of names by DNS records.
type records struct {
	dns      *dcv.DNS
	override string // the name of all records, if not empty
	mode     Mode
	logger   *zap.Logger

	mu   sync.Mutex
	live map[string]*liveRecords // by ID of the proof
}

// liveRecords are what this process has in DNS for one proof.
type liveRecords struct {
	list   []dcv.Record
	waited bool // as long as it may, for this list
}

// wanted are the records of a proof. Those in extra are good to have: Sectigo adds the
// apex to an order for its www name if it can be proven, too (Sectigo, "Domain Control
// Validation (DCV) of www subdomains and base domain names"). The reverse needs no
// record, because the CA looks at the parents of each name.
type wanted struct {
	needed, extra []dcv.Record
}

func (w wanted) all() []dcv.Record { return slices.Concat(w.needed, w.extra) }

// wanted turns challenges into records. Those for other methods are left out; a vendor
// may send several kinds.
func (r *records) wanted(p Proof, challenges []vendors.Challenge) (wanted, error) {
	var w wanted
	for _, ch := range challenges {
		if ch.Method != vendors.MethodDNS {
			continue
		}
		hosts := p.Names
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
	if len(w.needed) == 0 && len(challenges) > 0 {
		return wanted{}, errNoRecord
	}
	return w, nil
}

var errNoRecord = errors.New("the vendor asks for proofs of control, but for no DNS record")

func (r *records) record(host string, ch vendors.Challenge) (dcv.Record, error) {
	if r.override != "" {
		return dcv.NewRecordAt(r.override, ch.RecordType, ch.RecordValue)
	}
	return dcv.NewRecord(host, ch.RecordName, ch.RecordType, ch.RecordValue)
}

// Present implements Prover.
func (r *records) Present(ctx context.Context, p Proof) error {
	w, err := r.wanted(p, p.challenges())
	if err != nil {
		return err
	}
	var added []dcv.Record
	for i, record := range w.all() {
		isNew, err := r.dns.Present(ctx, record)
		if isNew {
			added = append(added, record)
		}
		switch needed := i < len(w.needed); {
		case err != nil && needed:
			r.mu.Lock()
			added = r.unused(added)
			r.mu.Unlock()
			r.remove(ctx, added)
			return err
		case err != nil:
			r.logger.Debug("adding a DNS record failed, which is useful, but not required", zap.Stringer("record", record), zap.Error(err))
		}
	}
	r.remove(ctx, r.replace(p, w.all(), len(added) > 0))
	return nil
}

// replace notes what is in DNS for a proof, and returns what is not needed there any
// more.
func (r *records) replace(p Proof, list []dcv.Record, changed bool) []dcv.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := &liveRecords{list: list}
	var old []dcv.Record
	if before := r.live[p.ID]; before != nil {
		old = before.list
		next.waited = before.waited && !changed
	} else if len(p.Challenges) > 0 {
		// The first time in this process. Another process may have presented the trial.
		old = r.known(p, p.Trial)
	}
	if r.live == nil {
		r.live = make(map[string]*liveRecords)
	}
	r.live[p.ID] = next
	return r.unused(old)
}

// known are the records of challenges, none if they cannot be read: then nothing was
// added.
func (r *records) known(p Proof, challenges []vendors.Challenge) []dcv.Record {
	w, _ := r.wanted(p, challenges)
	return w.all()
}

// unused leaves out what a live proof needs. Vendors may ask for the same record for
// several orders. The mutex is held.
func (r *records) unused(list []dcv.Record) []dcv.Record {
	var unused []dcv.Record
	for _, record := range list {
		used := slices.Contains(unused, record)
		for _, own := range r.live {
			used = used || slices.Contains(own.list, record)
		}
		if !used {
			unused = append(unused, record)
		}
	}
	return unused
}

// Wait implements Prover. Only the first time does it wait for what was presented as long
// as it may; after that it takes one look.
func (r *records) Wait(ctx context.Context, p Proof) error {
	w, err := r.wanted(p, p.challenges())
	if err != nil || len(w.needed) == 0 || r.mode == ModeOff {
		return err
	}
	err = r.waitPropagation(ctx, p.ID, w.needed)
	problem, ok := errors.AsType[*dcv.PropagationError](err)
	switch {
	case !ok:
		return err
	case r.mode.stops(problem.Wrong()):
		return err
	}
	r.logger.Warn("a DNS record for validation cannot be seen from here; the CA may succeed all the same",
		zap.Strings("identifiers", p.Names), zap.Error(err))
	return nil
}

func (r *records) waitPropagation(ctx context.Context, id string, list []dcv.Record) error {
	r.mu.Lock()
	own := r.live[id]
	again := own != nil && own.waited
	r.mu.Unlock()
	if again {
		return r.dns.Look(ctx, list)
	}
	err := r.dns.Await(ctx, list)
	if ctx.Err() == nil && own != nil {
		r.mu.Lock()
		own.waited = true
		r.mu.Unlock()
	}
	return err
}

// CleanUp implements Prover. The proof lists what a process that is gone may have added.
func (r *records) CleanUp(ctx context.Context, p Proof) { r.cleanUp(ctx, p) }

// cleanUp is CleanUp, and returns what could not be removed.
func (r *records) cleanUp(ctx context.Context, p Proof) (left []dcv.Record) {
	list := slices.Concat(r.known(p, p.Challenges), r.known(p, p.Trial))
	r.mu.Lock()
	if own := r.live[p.ID]; own != nil {
		list = slices.Concat(own.list, list)
	}
	delete(r.live, p.ID)
	list = r.unused(list)
	r.mu.Unlock()
	return r.remove(ctx, list)
}

func (r *records) remove(ctx context.Context, list []dcv.Record) (left []dcv.Record) {
	for _, record := range list {
		if err := r.dns.Remove(ctx, record); err != nil {
			left = append(left, record)
			r.logger.Warn("removing a DNS record failed; remove it by hand", zap.Stringer("record", record), zap.Error(err))
		}
	}
	return left
}

// Seen implements Prover. It knows of no visits: they are to the name servers of the zone.
func (*records) Seen(Proof) string { return "" }
