package dcv

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"
	"go.uber.org/zap"
)

// DNS puts records into zones and takes them out again, through a libdns provider. It
// never touches other records: it removes only those with the name, the type and the
// value of the record given. Provider is required; all other fields have useful zero
// values. It must not be copied, and its methods may be called concurrently.
type DNS struct {
	// Provider manages the zones. If it is a libdns.RecordGetter as well, it is asked
	// for what there is before anything is added.
	Provider certmagic.DNSProvider

	// TTL of the records. Zero lets the provider choose, usually.
	TTL time.Duration

	// PropagationDelay is how long to wait before the first look for a new record.
	PropagationDelay time.Duration

	// PropagationTimeout is how long to look. Zero means two minutes, less than zero
	// not at all.
	PropagationTimeout time.Duration

	// Resolvers are asked instead of the system's, and instead of the zones' own
	// servers: hosts with an optional port.
	Resolvers []string

	// Turns has one element for each change that is under way, so that its capacity bounds
	// them. Several DNS can share it. Nil means that there is no bound.
	Turns chan struct{}

	// Logger may be nil.
	Logger *zap.Logger

	// exchange and findZone replace the network in tests.
	exchange func(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error)
	findZone func(ctx context.Context, name string) (string, error)

	mu     sync.Mutex
	placed map[Record]placed
}

// changeTimeout bounds one change, with all the questions that it takes. The removal of
// a record goes on when all else was cancelled.
const changeTimeout = time.Minute

// placed is a record that this process has added.
type placed struct {
	zone   string
	record libdns.Record // as the provider calls it
}

// Present adds a record, unless it is there already, and reports whether it did. With an
// error, it reports whether it may have: an answer can be lost.
func (d *DNS) Present(ctx context.Context, r Record) (added bool, err error) {
	if err := d.enter(ctx); err != nil {
		return false, err
	}
	defer d.leave()
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	zone, err := d.zone(ctx, r.Name)
	if err != nil {
		return false, err
	}
	if there, err := d.there(ctx, zone, r); there || err != nil {
		return false, err
	}
	d.log().Debug("adding DNS record", zap.String("zone", zone), zap.Stringer("record", r))
	results, err := d.Provider.AppendRecords(ctx, zone, []libdns.Record{r.in(zone, d.TTL)})
	if err != nil {
		return true, fmt.Errorf("adding the record %s to the zone %s: %w", r, zone, withoutQuery(err))
	}
	own := placed{zone: zone}
	if len(results) == 1 && results[0] != nil && r.is(results[0].RR(), zone) {
		own.record = results[0]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.placed == nil {
		d.placed = make(map[Record]placed)
	}
	d.placed[r] = own
	return true, nil
}

// enter waits for a turn to change something.
func (d *DNS) enter(ctx context.Context) error {
	if d.Turns == nil {
		return nil
	}
	select {
	case d.Turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *DNS) leave() {
	if d.Turns != nil {
		<-d.Turns
	}
}

// there reports whether the zone has the record, as far as that can be told without
// adding it.
func (d *DNS) there(ctx context.Context, zone string, r Record) (bool, error) {
	if getter, ok := d.Provider.(libdns.RecordGetter); ok {
		list, err := getter.GetRecords(ctx, zone)
		if err != nil {
			return false, fmt.Errorf("listing the records of the zone %s: %w", zone, withoutQuery(err))
		}
		return r.among(list, zone)
	}
	d.mu.Lock()
	_, own := d.placed[r]
	d.mu.Unlock()
	if own {
		return true, nil
	}
	// Another process may have added it. Whatever goes wrong with the question, adding
	// is worth a try.
	return d.look(ctx, []Record{r}) == nil, nil
}

// among looks for the record in a list. Another record that it cannot stand beside is an
// error.
func (r Record) among(list []libdns.Record, zone string) (bool, error) {
	for _, other := range list {
		rr := other.RR()
		if r.is(rr, zone) {
			return true, nil
		}
		if r.named(rr, zone) && (r.Type == "CNAME" || rr.Type == "CNAME") && !slices.Contains(besideCNAME, rr.Type) {
			return false, fmt.Errorf("%s cannot be added: there is a record %s %s %s at this name, and nothing can stand beside a CNAME",
				r, r.Name, rr.Type, rr.Data)
		}
	}
	return false, nil
}

// besideCNAME are the types that signed zones have at every name, RFC 4035, section
// 2.5.
var besideCNAME = []string{"RRSIG", "NSEC"}

// Remove takes a record away. It needs no earlier Present, and works when ctx is done,
// too. A record that does not exist is no error.
func (d *DNS) Remove(ctx context.Context, r Record) error {
	ctx = context.WithoutCancel(ctx)
	_ = d.enter(ctx) // it waits as long as it takes: no turn lasts longer than changeTimeout
	defer d.leave()
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	d.mu.Lock()
	own := d.placed[r]
	d.mu.Unlock()
	if own.zone == "" {
		var err error
		if own.zone, err = d.zone(ctx, r.Name); err != nil {
			return err
		}
	}
	victims, err := d.victims(ctx, own, r)
	if err != nil {
		return err
	}
	if len(victims) > 0 {
		d.log().Debug("removing DNS record", zap.String("zone", own.zone), zap.Stringer("record", r))
		if _, err := d.Provider.DeleteRecords(ctx, own.zone, victims); err != nil {
			return fmt.Errorf("removing the record %s from the zone %s: %w", r, own.zone, withoutQuery(err))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.placed, r)
	return nil
}

// victims is what to ask the provider to delete. Its own version of the record is best,
// because it may carry an ID. Otherwise all fields but the TTL are given: to libdns, an
// empty field means any value.
func (d *DNS) victims(ctx context.Context, own placed, r Record) ([]libdns.Record, error) {
	if own.record != nil {
		return []libdns.Record{own.record}, nil
	}
	getter, ok := d.Provider.(libdns.RecordGetter)
	if !ok {
		return []libdns.Record{r.in(own.zone, 0)}, nil
	}
	list, err := getter.GetRecords(ctx, own.zone)
	if err != nil {
		return nil, fmt.Errorf("listing the records of the zone %s: %w", own.zone, withoutQuery(err))
	}
	return slices.DeleteFunc(slices.Clone(list), func(other libdns.Record) bool { return !r.is(other.RR(), own.zone) }), nil
}

// queryError is an error of a provider without the query of the URL that it has asked: some send
// their key in it.
type queryError struct {
	text string
	err  error
}

func (e *queryError) Error() string { return e.text }
func (e *queryError) Unwrap() error { return e.err }

// query is that of a URL in a text, behind the rest of the URL.
var query = regexp.MustCompile(`(https?://[^\s"?]+)\?[^\s"]*`)

func withoutQuery(err error) error {
	said := err.Error()
	text := query.ReplaceAllString(said, "$1")
	if text == said {
		return err
	}
	return &queryError{text, err}
}

// in writes the record relative to its zone. The target of a CNAME ends with the dot of
// the root: in the syntax of zone files, names without it are relative.
func (r Record) in(zone string, ttl time.Duration) libdns.RR {
	data := r.Value
	if r.Type == "CNAME" {
		data += "."
	}
	return libdns.RR{Name: libdns.RelativeName(r.Name+".", zone), TTL: ttl, Type: r.Type, Data: data}
}

func (r Record) is(rr libdns.RR, zone string) bool {
	return r.named(rr, zone) && strings.EqualFold(rr.Type, r.Type) && r.same(rr.Data)
}

// named reports whether a record of the zone has the same name. Some providers list
// absolute names.
func (r Record) named(rr libdns.RR, zone string) bool {
	return strings.EqualFold(strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), "."), r.Name) ||
		strings.EqualFold(rr.Name, r.Name)
}

func (d *DNS) log() *zap.Logger {
	if d.Logger == nil {
		return zap.NewNop()
	}
	return d.Logger
}

// CheckResolvers judges a list of resolvers without asking them.
func CheckResolvers(list []string) error {
	for _, resolver := range list {
		if err := checkResolver(resolver); err != nil {
			return fmt.Errorf("%q is not a host with an optional port: %w", resolver, err)
		}
	}
	return nil
}

var errNoHost = errors.New("no host name or address")
