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

	"github.com/caddy-commercial/caddy-commercial/operator"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func productsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "products",
		Short: "Lists what the vendors of a config sell",
		Long: `Asks the vendors of all commercial issuers in the config for their products: the code for
the option product, the kind of validation, whether wildcards are possible, the number of
names, and the prices by term in months, as the vendor writes them. Prices may be estimates
and without tax. Nothing is ordered.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringP("config", "c", "", "Configuration file that has the vendors")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().String("vendor", "", "Only the products of this vendor")
	cmd.Flags().String("search", "", "Only products whose code or name has all of these words")
	cmd.Flags().Bool("json", false, "Write JSON")
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
	catalogues := []catalogue{}
	for _, v := range list {
		c, err := catalogueOf(ctx, v, fl.String("search"))
		if errs = append(errs, err); err != nil {
			continue
		}
		if catalogues = append(catalogues, c); !fl.Bool("json") {
			errs = append(errs, c.write(os.Stdout))
		}
	}
	if fl.Bool("json") {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		errs = append(errs, out.Encode(catalogues))
	}
	if err := errors.Join(errs...); err != nil {
		return caddy.ExitCodeFailedStartup, printable(err)
	}
	return caddy.ExitCodeSuccess, nil
}

// configuredVendors loads the vendors of the commercial issuers that are anywhere in a
// config, each account once: those with the given name, or all if it is empty.
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
			return nil, fmt.Errorf("module %T is not a vendor", mod)
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

// catalogue is what a vendor sells.
type catalogue struct {
	Vendor   string    `json:"vendor"`
	Account  string    `json:"account"`
	Products []product `json:"products"`
}

// product is a [vendors.Product] in JSON.
type product struct {
	Code       string         `json:"code"`
	Name       string         `json:"name,omitempty"`
	Validation string         `json:"validation,omitempty"`
	Wildcard   bool           `json:"wildcard,omitempty"`
	MaxNames   int            `json:"max_names,omitempty"`
	Prices     map[int]string `json:"prices,omitempty"` // by months
}

// catalogueOf returns the products of a vendor that match all words of the search.
func catalogueOf(ctx context.Context, v vendors.Vendor, search string) (catalogue, error) {
	about := v.Describe()
	c := catalogue{Vendor: about.Name, Account: about.Account, Products: []product{}}
	lister, ok := v.(vendors.ProductLister)
	if !ok {
		return c, fmt.Errorf("%s does not list its products; look at %s", about.Name, about.Portal)
	}
	products, err := lister.Products(ctx)
	if err != nil {
		return c, fmt.Errorf("asking %s for its products: %w", about.Name, err)
	}
	for _, p := range products {
		if matches(p, search) {
			c.Products = append(c.Products, product(p))
		}
	}
	slices.SortFunc(c.Products, func(a, b product) int { return strings.Compare(a.Code, b.Code) })
	return c, nil
}

// write writes the catalogue for people.
func (c catalogue) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "%s (%s): %d products\n", c.Vendor, c.Account, len(c.Products))
	fmt.Fprintln(table, "CODE\tVALIDATION\tWILDCARD\tNAMES\tPRICES BY MONTHS\tNAME")
	for _, p := range c.Products {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", operator.Word(p.Code), operator.Word(p.Validation), yes(p.Wildcard), maxNames(p), pricesOf(p), operator.Word(p.Name))
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

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "-"
}

func maxNames(p product) string {
	if p.MaxNames == 0 {
		return "-"
	}
	return fmt.Sprint(p.MaxNames)
}

func pricesOf(p product) string {
	list := make([]string, 0, len(p.Prices))
	for _, months := range slices.Sorted(maps.Keys(p.Prices)) {
		list = append(list, fmt.Sprintf("%d: %s", months, operator.Word(p.Prices[months])))
	}
	return operator.Word(strings.Join(list, ", "))
}
