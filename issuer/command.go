package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "commercial",
		Usage: "<command> [--config <path>] [--adapter <name>] [--address <interface>]",
		Short: "Manages orders of commercial certificates",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(checkCommand(), listCommand(), showCommand(), forecastCommand(), waitCommand(), reconcileCommand(), renewCommand(),
				cancelCommand(), revokeCommand(),
				resolveCommand(), adoptCommand(), importCommand(), productsCommand())
		},
	})
}

// loadStorage loads a storage from its JSON in a config. Empty JSON means Caddy's default storage.
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
		return nil, nil, errors.New("the storage module of the config is not a storage")
	}
	storage, err := converter.CertMagicStorage()
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("setting up the storage of the config: %w", err)
	}
	return storage, cancel, nil
}

// sayTo writes lines that a terminal may be given: some of their words may be a vendor's.
func sayTo(w io.Writer) say {
	return func(format string, args ...any) { fmt.Fprintln(w, operator.Word(fmt.Sprintf(format, args...))) }
}

// printable is an error whose text a terminal may be given.
func printable(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = operator.Word(line)
	}
	return errors.New(strings.Join(lines, "\n"))
}
