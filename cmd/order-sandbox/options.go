package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/fault"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/resolver"
)

// organization is the ID of the organization that orders of DigiCert's dialect may
// name.
const organization = 700001

// prefixes are where the dialects are served.
var prefixes = map[string]string{"racent": "/ssl", "digicert": "/services/v2", "howssl": "/Home"}

// options are the flags.
type options struct {
	listen, control string
	dir             string
	tokens          []string
	balance         int64
	dialects        []string

	resolver              string
	httpPort, httpsPort   int
	perspectives, mayMiss int
	clientAuth            bool

	lifetime, year                   time.Duration
	submitDelay, ovDelay, issueDelay time.Duration
	checkInterval                    time.Duration

	calm    bool
	seed    uint64
	limit   fault.Limit
	verbose bool
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := new(options)
	flags := flag.NewFlagSet("order-sandbox", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:14080", "address of the order APIs")
	flags.StringVar(&o.control, "control", "127.0.0.1:14081", "address of the control API")
	flags.StringVar(&o.dir, "dir", "", "directory of keys, orders and charges, kept across restarts (default: one for this run)")
	tokens := flags.String("tokens", "sandbox", "API credentials, one for each account, separated by commas")
	flags.Int64Var(&o.balance, "balance", 1_000_000, "opening balance of each account in cents")
	dialects := flags.String("dialects", "racent,digicert,howssl", "APIs to serve, separated by commas")
	flags.IntVar(&o.httpPort, "http-port", 5002, "port of 127.0.0.1 where validation files are fetched over HTTP")
	flags.IntVar(&o.httpsPort, "https-port", 5001, "port of 127.0.0.1 where validation files are fetched over HTTPS")
	flags.StringVar(&o.resolver, "resolver", "", "IP address and port of the resolver for DNS validation and CAA (default none)")
	flags.IntVar(&o.perspectives, "perspectives", 6, "independent checks of each proof")
	flags.IntVar(&o.mayMiss, "may-miss", 2, "how many of these checks may find nothing")
	flags.BoolVar(&o.clientAuth, "client-auth", false, "issue certificates with clientAuth, too")
	flags.DurationVar(&o.lifetime, "lifetime", 199*24*time.Hour, "validity of a certificate")
	flags.DurationVar(&o.year, "year", 365*24*time.Hour, "length of a paid year; all days of a term scale with it")
	flags.DurationVar(&o.submitDelay, "submit-delay", 0, "time until the CA receives an order")
	flags.DurationVar(&o.ovDelay, "ov-delay", 0, "time to check an organization")
	flags.DurationVar(&o.issueDelay, "issue-delay", 0, "time from the end of all checks to the certificate")
	flags.DurationVar(&o.checkInterval, "check-interval", 5*time.Second, "how often to check pending orders; 0s checks only within calls")
	flags.BoolVar(&o.calm, "calm", false, "no faults of its own")
	flags.Uint64Var(&o.seed, "seed", 0, "seed of its own faults (default: random)")
	flags.IntVar(&o.limit.Calls, "limit", 0, "calls that each API answers within -limit-per; more get HTTP 429 (default: no limit)")
	flags.DurationVar(&o.limit.Per, "limit-per", fault.DigiCertLimit.Per, "see -limit")
	flags.DurationVar(&o.limit.Block, "limit-block", fault.DigiCertLimit.Block, "how long everything is refused after one call too many")
	flags.BoolVar(&o.verbose, "v", false, "log each call and each fetch")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.tokens, o.dialects = split(*tokens), split(*dialects)
	if o.seed == 0 {
		o.seed = rand.Uint64() //nolint:gosec // it is printed
	}
	return o, o.check(flags.Args())
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case len(o.tokens) == 0:
		return errors.New("-tokens is empty")
	case len(o.dialects) == 0:
		return errors.New("-dialects is empty")
	case o.perspectives < 1 || o.mayMiss < 0 || o.mayMiss >= o.perspectives:
		return errors.New("-perspectives must be at least 1, and -may-miss less than that")
	case o.limit.Calls < 0 || o.limit.Per <= 0 || o.limit.Block < 0:
		return errors.New("-limit and -limit-block must not be negative, and -limit-per must be above 0s")
	case o.lifetime <= 0 || o.year <= 0:
		return errors.New("-lifetime and -year must be above 0s")
	}
	for _, name := range o.dialects {
		if prefixes[name] == "" {
			return fmt.Errorf("-dialects: unknown dialect %q", name)
		}
	}
	return nil
}

func (o *options) config() (hostile.Config, error) {
	accounts := make([]hostile.Account, 0, len(o.tokens))
	for _, token := range o.tokens {
		accounts = append(accounts, hostile.Account{Token: token, Balance: o.balance, Organizations: []int64{organization}})
	}
	cfg := hostile.Config{
		Core: hostile.Core{
			Accounts: accounts,
			Lifetime: o.lifetime, Year: o.year,
			SubmitDelay: o.submitDelay, OVDelay: o.ovDelay, IssueDelay: o.issueDelay, CheckInterval: o.checkInterval,
			HTTPPort: o.httpPort, HTTPSPort: o.httpsPort,
			Perspectives: o.perspectives, Quorum: o.perspectives - o.mayMiss,
			ClientAuth: o.clientAuth,
		},
		Dialects: o.dialects,
	}
	if o.resolver == "" {
		return cfg, nil
	}
	asked, err := resolver.New(o.resolver)
	if err != nil {
		return cfg, err
	}
	asked.Serve(&cfg.Core)
	return cfg, nil
}

// announce prints what a user needs to know.
func (o *options) announce(out io.Writer, api, admin, root string) {
	mood := fmt.Sprintf("hostile, as real sellers are on an ordinary day (-seed %d); -calm turns this off", o.seed)
	if o.calm {
		mood = "calm"
	}
	lines := make([]string, 0, 8)
	for _, name := range o.dialects {
		lines = append(lines, fmt.Sprintf("%-9s %s%s", name, api, prefixes[name]))
	}
	for _, token := range o.tokens {
		lines = append(lines, "token     "+token+", as accounturi in CAA records "+sandboxca.AccountURI(sandboxca.Account{Token: token}.Key()))
	}
	lines = append(lines,
		"control   "+admin,
		"root      "+root,
		fmt.Sprintf("DigiCert  organization %d", organization),
		fmt.Sprintf("files     are fetched from 127.0.0.1:%d (http) and 127.0.0.1:%d (https), whatever the name", o.httpPort, o.httpsPort),
		"behaviour "+mood)
	_, _ = fmt.Fprintln(out, strings.Join(lines, "\n")) // nothing to do if nobody reads it
}
