package issuer

import (
	"context"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

func forecastCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forecast",
		Short: "Forecasts the orders, reissues and prices of the next days",
		Long: `Shows what the names of the config will need over the next days: orders, which are paid
for, and reissues, which are free, with the names that are validated for them, and with
prices where the vendor lists them. The forecast follows from the orders in the ledger, the
config, and the dates from which certificates are valid for fewer days. Nothing is ordered.

A running Caddy is asked through its admin endpoint. If none runs, the storage of the
config is read.`,
		Args: cobra.NoArgs,
	}
	deskFlags(cmd)
	cmd.Flags().Int("days", operator.DefaultDays, "How many days ahead")
	cmd.Flags().String("vendor", "", "Only this vendor, or vendor/account")
	listFlags(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdForecast)
	return cmd
}

func cmdForecast(fl caddycmd.Flags) (int, error) {
	o := operator.Outlook{Days: fl.Int("days"), Vendor: fl.String("vendor")}
	if err := o.Check(); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("--%w", err)
	}
	return atDesk(fl, func(ctx context.Context, d *desk) error {
		f, err := d.forecast(ctx, o)
		if err != nil {
			return err
		}
		return operator.WriteForecast(os.Stdout, listFormat(fl), f)
	})
}
