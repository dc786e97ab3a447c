package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/ledger"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "commercial",
		Usage: "(resolve <name> (--order <id> | --none) | import --cert <file> --key <file> | products [--search <words>]) [--vendor <name>] [--config <path>] [--adapter <name>]",
		Short: "Manages orders of commercial certificates",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(resolveCommand(), importCommand(), productsCommand())
		},
	})
}

func resolveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolve <name> (--order <id> | --none)",
		Short: "Settles an order whose fate only a person can find out",
		Long: `Settles the ledger's entry of an order after its fate could not be told, after it
ended without a certificate, or whenever you know better. Look into the vendor's
portal first, as the error in the log says: --order means that the order is there,
--none that it is not, or is given up, so that a new one may be placed and paid for.
While a request may still be on its way, it is refused; the answer says until when.

The storage is that of the given config. Reload Caddy afterwards with --force, or
wait for its next attempt.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringP("config", "c", "", "Configuration file that names the storage")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().String("order", "", "The vendor's ID of the order")
	cmd.Flags().Bool("none", false, "There is no order")
	cmd.Flags().String("vendor", "", "The vendor, if several have an order for the name")
	cmd.Flags().String("entry", "", "The ledger's entry, if there are several orders for the name")
	cmd.MarkFlagsMutuallyExclusive("order", "none")
	cmd.MarkFlagsOneRequired("order", "none")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdResolve)
	return cmd
}

func cmdResolve(fl caddycmd.Flags) (int, error) {
	storage, release, err := storageOf(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	defer release()
	e, err := ledger.Resolve(context.Background(), storage, fl.Arg(0), ledger.Resolution{
		Vendor: fl.String("vendor"), Entry: fl.String("entry"), OrderID: fl.String("order"), None: fl.Bool("none"),
	})
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	names := strings.Join(e.Names, ", ")
	if e.State == ledger.Gone {
		fmt.Printf("%s: there is no order, a new one may be placed; reload Caddy with --force to go on at once\n", names)
	} else {
		fmt.Printf("%s: order %s will be used; reload Caddy with --force to go on at once\n", names, e.OrderID)
	}
	return caddy.ExitCodeSuccess, nil
}

// storageOf returns the storage that a config names, or the default one.
func storageOf(configFile, adapter string) (certmagic.Storage, func(), error) {
	raw, _, _, err := caddycmd.LoadConfig(configFile, adapter)
	if err != nil {
		return nil, nil, err
	}
	var cfg struct {
		Storage json.RawMessage `json:"storage,omitempty"`
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &cfg); err != nil {
			return nil, nil, fmt.Errorf("reading the storage from the config: %w", err)
		}
	}
	return loadStorage(cfg.Storage)
}

// loadStorage loads a storage as it stands in a config. Nothing is the default one.
func loadStorage(raw json.RawMessage) (certmagic.Storage, func(), error) {
	cfg := struct {
		StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=caddy.storage inline_key=module"`
	}{raw}
	if len(raw) == 0 {
		return caddy.DefaultStorage, func() {}, nil
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	mod, err := ctx.LoadModule(&cfg, "StorageRaw")
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("loading the storage of the config: %w", err)
	}
	converter, ok := mod.(caddy.StorageConverter)
	if !ok {
		cancel()
		return nil, nil, errors.New("the storage of the config is no storage")
	}
	storage, err := converter.CertMagicStorage()
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("setting up the storage of the config: %w", err)
	}
	return storage, cancel, nil
}
