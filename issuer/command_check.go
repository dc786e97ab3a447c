package issuer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/check"
	"github.com/caddy-commercial/caddy-commercial/dcv"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [<name>...]",
		Short: "Checks what would stop an order, and what would be bought",
		Long: `Checks everything that an order for the names, or for the whole config, needs: the vendor's
credential, product, price and balance; contacts and organization; each name in DNS, with
DNSSEC, at all of its name servers and addresses, and its CAA records; with dcv dns, a DNS
record that is added and removed, and whether the CA finds it; the storage and its locks, the clock, and the ports. All
checks run at the same time. Each has a verdict: ok, warning, or STOP if an order would be
lost. At the end, it shows what starting Caddy with this config would buy now.

Nothing is ordered, and nothing is left behind. If Caddy runs on this machine, it serves the
trial file that is fetched; if not, this command does.

The exit code is 0 if nothing stops an order, and 1 if something does, or after an error.`,
	}
	cmd.Flags().StringP("config", "c", "", "Configuration file")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().String("address", "", "Address of the admin endpoint of the running Caddy, if not that of the config")
	cmd.Flags().String("vendor", "", "Only the issuers of this vendor")
	cmd.Flags().Duration("timeout", 10*time.Second, "How long all checks together may take")
	cmd.Flags().Bool("json", false, "Write JSON")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdCheck)
	return cmd
}

// checked is the output of the command check.
type checked struct {
	Results []check.Result `json:"results"`
	Quote   []quoted       `json:"quote"`
}

func cmdCheck(fl caddycmd.Flags) (int, error) {
	// However it is ended, by a service manager or as its terminal is closed, it takes its record away.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	out, err := checkConfig(ctx, fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fl.Bool("json") {
		to := json.NewEncoder(os.Stdout)
		to.SetIndent("", "  ")
		err = to.Encode(out)
	} else {
		err = out.write(os.Stdout)
	}
	stops := 0
	for _, r := range out.Results {
		if r.Verdict == check.Stop {
			stops++
		}
	}
	switch {
	case err != nil:
		return caddy.ExitCodeFailedStartup, err
	case stops > 0:
		return caddy.ExitCodeFailedStartup, fmt.Errorf("an order would be stopped by %d of %d checks", stops, len(out.Results))
	}
	return caddy.ExitCodeSuccess, nil
}

func checkConfig(ctx context.Context, fl caddycmd.Flags) (*checked, error) {
	file, adapter := fl.String("config"), fl.String("adapter")
	raw, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	var config configuration
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, fmt.Errorf("reading the config: %w", err)
		}
	}
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, file, adapter)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, arg := range fl.Args() {
		name := dcv.NormalizeHost(arg)
		if name == "" {
			return nil, fmt.Errorf("%q is not a name", arg)
		}
		names = append(names, name)
	}
	// An empty configuration gives vendors Caddy's own logger. It ends with the process.
	empty, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		return nil, err
	}
	in, err := config.inspect(empty, names, fl.String("vendor"))
	if err != nil {
		return nil, err
	}
	defer in.end()
	in.within = fl.Duration("timeout")
	preparing, cancel := context.WithTimeout(ctx, in.within)
	defer cancel()
	if err := in.askRunning(preparing, address); err != nil {
		return nil, err
	}
	in.serve(preparing)
	results := check.Run(ctx, in.within, in.tasks())
	return &checked{Results: results, Quote: in.quotes()}, ctx.Err()
}

// newTrialID is an ID that no order has.
func newTrialID() string { return "check-" + new(ledger.Ledger).NewReference() }

// write writes the results for people, those that stop an order first.
func (c *checked) write(w io.Writer) error {
	order := []check.Verdict{check.Stop, check.Warning, check.OK}
	results := slices.Clone(c.Results)
	slices.SortStableFunc(results, func(a, b check.Result) int {
		return cmp.Compare(slices.Index(order, a.Verdict), slices.Index(order, b.Verdict))
	})
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range results {
		verdict := string(r.Verdict)
		if r.Verdict == check.Stop {
			verdict = strings.ToUpper(verdict)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", verdict, r.Check, operator.Word(r.Name), operator.Word(r.Message))
		if r.Advice != "" && r.Verdict != check.OK {
			fmt.Fprintf(table, "\t\t\t-> %s\n", operator.Word(r.Advice))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return writeQuote(w, c.Quote, check.Stops(c.Results))
}
