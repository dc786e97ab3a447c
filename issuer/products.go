package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func productsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "products",
		Short: "Lists what the vendors of a config sell",
		Long: `Asks the vendors of all commercial issuers in the config for their products: the code
that goes into the option product, how it is validated, whether it takes wildcards, how
many names it can have, and its prices by term in months, as the vendor writes them.
Prices may be estimates and without tax. Nothing is ordered.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringP("config", "c", "", "Configuration file that has the vendors")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().String("vendor", "", "Only this vendor's")
	cmd.Flags().String("search", "", "Only products whose code or name has all of these words")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdProducts)
	return cmd
}

// listPatience is how long all answers may take. A vendor may be asked for a price for
// each of hundreds of products.
const listPatience = 10 * time.Minute

func cmdProducts(fl caddycmd.Flags) (int, error) {
	raw, _, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	var config any
	if err := json.Unmarshal(raw, &config); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("reading the config: %w", err)
	}
	// An empty configuration gives the vendors Caddy's own logger. It ends with the process.
	empty, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	ctx, stop := context.WithTimeout(empty, listPatience)
	defer stop()
	list, err := configuredVendors(empty, config, fl.String("vendor"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	var errs []error
	for _, v := range list {
		errs = append(errs, writeProducts(ctx, os.Stdout, v, fl.String("search")))
	}
	if err := errors.Join(errs...); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

// configuredVendors loads the vendors of the commercial issuers that are anywhere in a
// config, each account once. Name is that of the only one wanted, or empty.
func configuredVendors(ctx caddy.Context, config any, name string) ([]vendors.Vendor, error) {
	accounts := make(map[string]vendors.Vendor)
	for _, raw := range vendorsIn(config) {
		var is struct {
			Name string `json:"name"`
		}
		if json.Unmarshal(raw, &is) != nil || name != "" && is.Name != name {
			continue
		}
		if is.Name == "sandbox" {
			continue // it runs inside the server, and sells what its documentation lists
		}
		holder := struct {
			VendorRaw json.RawMessage `json:"vendor" caddy:"namespace=tls.vendors inline_key=name"`
		}{raw}
		mod, err := ctx.LoadModule(&holder, "VendorRaw")
		if err != nil {
			return nil, fmt.Errorf("loading vendor %s: %w", is.Name, err)
		}
		vendor, ok := mod.(vendors.Vendor)
		if !ok {
			return nil, fmt.Errorf("module %T is no vendor", mod)
		}
		about := vendor.Describe()
		accounts[about.Name+" "+about.Account] = vendor
	}
	if len(accounts) == 0 {
		return nil, errors.New("the config has no commercial issuer with such a vendor (the sandbox is none); name the file with --config")
	}
	var list []vendors.Vendor
	for _, key := range slices.Sorted(maps.Keys(accounts)) {
		list = append(list, accounts[key])
	}
	return list, nil
}

// vendorsIn returns the JSON of the vendors of all commercial issuers in a config.
func vendorsIn(config any) []json.RawMessage {
	var found []json.RawMessage
	switch config := config.(type) {
	case []any:
		for _, element := range config {
			found = append(found, vendorsIn(element)...)
		}
	case map[string]any:
		if config["module"] == "commercial" && config["vendor"] != nil {
			if raw, err := json.Marshal(config["vendor"]); err == nil {
				found = append(found, raw)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(config)) {
			found = append(found, vendorsIn(config[key])...)
		}
	}
	return found
}

// writeProducts writes the products of a vendor that match all words of the search.
func writeProducts(ctx context.Context, w io.Writer, v vendors.Vendor, search string) error {
	about := v.Describe()
	lister, ok := v.(vendors.ProductLister)
	if !ok {
		return fmt.Errorf("%s does not list its products; look at %s", about.Name, about.Portal)
	}
	products, err := lister.Products(ctx)
	if err != nil {
		return fmt.Errorf("asking %s for its products: %w", about.Name, err)
	}
	products = slices.DeleteFunc(products, func(p vendors.Product) bool { return !matches(p, search) })
	slices.SortFunc(products, func(a, b vendors.Product) int { return strings.Compare(a.Code, b.Code) })
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "%s (%s): %d products\n", about.Name, about.Account, len(products))
	fmt.Fprintln(table, "CODE\tVALIDATION\tWILDCARD\tNAMES\tPRICES BY MONTHS\tNAME")
	for _, p := range products {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", word(p.Code), word(p.Validation), yes(p.Wildcard), maxNames(p), pricesOf(p), word(p.Name))
	}
	return table.Flush()
}

func matches(p vendors.Product, search string) bool {
	text := strings.ToLower(p.Code + " " + p.Name)
	for _, part := range strings.Fields(strings.ToLower(search)) {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// word is a vendor's text as a cell of the table: in one line, and never empty.
func word(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == ' ' || r == 0x7f }), " ")
	if text == "" {
		return "-"
	}
	return text
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "-"
}

func maxNames(p vendors.Product) string {
	if p.MaxNames == 0 {
		return "-"
	}
	return fmt.Sprint(p.MaxNames)
}

func pricesOf(p vendors.Product) string {
	list := make([]string, 0, len(p.Prices))
	for _, months := range slices.Sorted(maps.Keys(p.Prices)) {
		list = append(list, fmt.Sprintf("%d: %s", months, word(p.Prices[months])))
	}
	return word(strings.Join(list, ", "))
}
