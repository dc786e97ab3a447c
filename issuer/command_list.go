package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

func listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists the orders in the ledger",
		Long: `Lists the orders that were paid for or adopted: their names and state, when the certificate
and the paid term end, when the certificate is renewed, and when the next order is paid for.

A running Caddy is asked through its admin endpoint. If none runs, the storage of the
config is read; without a config, that is Caddy's default one.`,
		Args: cobra.NoArgs,
	}
	deskFlags(cmd)
	cmd.Flags().String("state", "", "Only orders in this state: asked, open, issued, gone, over; or flagged, if they need a decision")
	cmd.Flags().String("vendor", "", "Only orders of this vendor, or vendor/account")
	cmd.Flags().String("expiring", "", "Only orders whose certificate ends within this duration, such as 30d")
	cmd.Flags().Bool("past", false, "Also orders whose paid term has ended")
	listFlags(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdList)
	return cmd
}

// listFlags adds the flags for the output format of a list.
func listFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "Write JSON")
	cmd.Flags().Bool("csv", false, "Write CSV")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
}

func listFormat(fl caddycmd.Flags) operator.Format {
	switch {
	case fl.Bool("json"):
		return operator.JSON
	case fl.Bool("csv"):
		return operator.CSV
	}
	return operator.Table
}

func cmdList(fl caddycmd.Flags) (int, error) {
	q := operator.Query{State: fl.String("state"), Vendor: fl.String("vendor"), Past: fl.Bool("past")}
	if text := fl.String("expiring"); text != "" {
		var err error
		if q.Expiring, err = caddy.ParseDuration(text); err != nil {
			return caddy.ExitCodeFailedStartup, fmt.Errorf("--expiring: %w", err)
		}
	}
	if err := q.Check(); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("--%w", err)
	}
	return atDesk(fl, func(ctx context.Context, d *desk) error {
		w := operator.NewWriter(os.Stdout, listFormat(fl))
		return errors.Join(d.list(ctx, q, w.Row), w.End())
	})
}

// atDesk calls do with a desk, and returns the exit code of the command.
func atDesk(fl caddycmd.Flags, do func(context.Context, *desk) error) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d, err := openDesk(ctx, fl)
	if err == nil {
		defer d.release()
		err = do(ctx, d)
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, printable(err)
	}
	return caddy.ExitCodeSuccess, nil
}

func showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show (<name> | <order>)",
		Short: "Shows everything about an order",
		Long: `Shows the history of the orders for a name, or of the order with an ID: what was requested
and answered, what a person has decided, its state, and what comes next and when.

A running Caddy is asked through its admin endpoint, which also knows what the vendor
said last. If none runs, the storage of the config is read.`,
		Args: cobra.ExactArgs(1),
	}
	deskFlags(cmd)
	cmd.Flags().Bool("json", false, "Write JSON")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdShow)
	return cmd
}

func cmdShow(fl caddycmd.Flags) (int, error) {
	return atDesk(fl, func(ctx context.Context, d *desk) error {
		stories, err := d.show(ctx, fl.Arg(0))
		if err != nil {
			return err
		}
		if fl.Bool("json") {
			out := json.NewEncoder(os.Stdout)
			out.SetIndent("", "  ")
			return out.Encode(stories)
		}
		for i, s := range stories {
			if i > 0 {
				fmt.Println()
			}
			if err := operator.WriteStory(os.Stdout, s); err != nil {
				return err
			}
		}
		return nil
	})
}
