package dcv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
)

// PropagationError says that a record that was added cannot be seen.
type PropagationError struct {
	Record Record

	// Waited is for how long.
	Waited time.Duration

	// Answers are what the name servers said, or why they did not.
	Answers []string

	// wrong is whether any of them said that there is no such record.
	wrong bool
}

func (e *PropagationError) Error() string {
	return fmt.Sprintf("the record %s could not be seen everywhere within %s (%s); see propagation_timeout",
		e.Record, e.Waited.Round(time.Second), strings.Join(e.Answers, "; "))
}

// Wrong reports whether a name server answered without the record, so that the CA
// cannot find it either. Otherwise none could be asked.
func (e *PropagationError) Wrong() bool { return e.wrong }

const (
	defaultPropagationTimeout = 2 * time.Minute

	// The bounds of the waits between looks. Zones are slow: the secondary servers
	// of a zone learn of a change within seconds to minutes.
	lookMin = 2 * time.Second
	lookMax = 10 * time.Second

	// lookTimeout bounds one question to one server.
	lookTimeout = 5 * time.Second
)

// Await waits until every name server that answers has the records, within the
// propagation timeout. The name servers are those of the records' zones, or the
// resolvers that are configured. A *PropagationError says what could not be seen; any
// other error is the cause of ctx.
func (d *DNS) Await(ctx context.Context, records []Record) error {
	if d.PropagationDelay > 0 {
		if err := poll.Wait(ctx, d.PropagationDelay); err != nil {
			return err
		}
	}
	timeout := d.PropagationTimeout
	switch {
	case timeout < 0:
		return nil
	case timeout == 0:
		timeout = defaultPropagationTimeout
	}
	start := time.Now()
	schedule := poll.Schedule{Min: lookMin, Max: lookMax}
	for {
		// With many records and servers that do not answer, one look may take longer
		// than the timeout.
		lookCtx, cancel := context.WithTimeout(ctx, max(timeout-time.Since(start), lookTimeout))
		problem := d.look(lookCtx, records)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if problem == nil {
			return nil
		}
		problem.Waited = time.Since(start)
		left := timeout - problem.Waited
		if left <= 0 {
			return problem
		}
		d.log().Debug("waiting for a DNS record to be seen everywhere",
			zap.Stringer("record", problem.Record), zap.Strings("answers", problem.Answers))
		if err := poll.Wait(ctx, min(schedule.Next(rand.Float64), left)); err != nil {
			return err
		}
	}
}

// Look is like Await, but takes a single look.
func (d *DNS) Look(ctx context.Context, records []Record) error {
	if d.PropagationTimeout < 0 {
		return nil
	}
	lookCtx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	problem := d.look(lookCtx, records)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case problem != nil:
		return problem
	}
	return nil
}

// look asks for the records once, and returns the first problem.
func (d *DNS) look(ctx context.Context, records []Record) *PropagationError {
	for _, r := range records {
		servers, err := d.servers(ctx, r)
		if err != nil {
			return &PropagationError{Record: r, Answers: []string{err.Error()}}
		}
		problem := PropagationError{Record: r}
		seen := false
		for _, server := range servers {
			switch found, err := d.has(ctx, server, r); {
			case err != nil:
				problem.Answers = append(problem.Answers, server+": "+err.Error())
			case !found:
				problem.wrong = true
				problem.Answers = append(problem.Answers, server+" does not have it")
			default:
				seen = true
			}
		}
		if !seen || problem.wrong {
			return &problem
		}
	}
	return nil
}

// has asks one server.
func (d *DNS) has(ctx context.Context, server string, r Record) (bool, error) {
	kind := dns.StringToType[r.Type]
	answer, err := d.ask(ctx, r.Name, kind, server)
	if err != nil {
		return false, err
	}
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if kind == dns.TypeCNAME && r.same(rr.Target) {
				return true, nil
			}
		case *dns.TXT:
			if kind == dns.TypeTXT && r.same(strings.Join(rr.Txt, "")) {
				return true, nil
			}
		}
	}
	return false, nil
}

// servers are where to look for a record.
func (d *DNS) servers(ctx context.Context, r Record) ([]string, error) {
	resolvers := certmagic.RecursiveNameservers(d.Resolvers)
	if len(d.Resolvers) > 0 {
		return resolvers, nil
	}
	zone, err := d.zone(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, resolver := range resolvers {
		answer, err := d.ask(ctx, zone, dns.TypeNS, resolver)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", resolver, err))
			continue
		}
		var servers []string
		for _, rr := range answer.Answer {
			if ns, ok := rr.(*dns.NS); ok {
				servers = append(servers, net.JoinHostPort(strings.TrimSuffix(ns.Ns, "."), "53"))
			}
		}
		if len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, fmt.Errorf("finding the name servers of %s: %w", zone, errors.Join(append(problems, errNoServers)...))
}

var errNoServers = errors.New("no answer names any")

// ask sends a question. An answer that does not tell whether there is such a record
// is an error.
func (d *DNS) ask(ctx context.Context, name string, kind uint16, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	question.SetEdns0(1232, false) // the size that passes everywhere, as of DNS Flag Day 2020
	send := d.exchange
	if send == nil {
		send = Exchange
	}
	answer, err := send(ctx, question, server)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the answer is %s", dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}

// zone finds the zone that a name is in.
func (d *DNS) zone(ctx context.Context, name string) (string, error) {
	if d.findZone != nil {
		return d.findZone(ctx, name)
	}
	zone, err := certmagic.FindZoneByFQDN(ctx, d.log(), name, certmagic.RecursiveNameservers(d.Resolvers))
	if err != nil {
		return "", fmt.Errorf("finding the DNS zone of %s: %w", name, err)
	}
	return zone, nil
}

func checkResolver(resolver string) error {
	host := resolver
	if _, err := netip.ParseAddr(resolver); err != nil && strings.Contains(resolver, ":") {
		var port string
		if host, port, err = net.SplitHostPort(resolver); err != nil {
			return err
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("the port must be a number from 1 to 65535")
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if _, valid := dns.IsDomainName(host); !valid || strings.ContainsAny(host, " /\\@{}") || host == "" {
		return errNoHost
	}
	return nil
}
