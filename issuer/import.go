package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/caddy-commercial/caddy-commercial/internal/bundle"
	"github.com/caddy-commercial/caddy-commercial/ledger"
)

func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import --cert <file> [--key <file>] [--chain <file>] [--pfx <file>]",
		Short: "Takes over a certificate that was bought elsewhere, with its key",
		Long: `Reads a certificate, its private key and its intermediates from PEM or DER files, in any
order and in one file or several, or from a PKCS#12 file. It checks that they fit together
and match the names of the config, and stores them where Caddy serves them from. Passwords
are asked for on the terminal, or read from a file.

The order of the certificate is entered into the ledger and counts as paid: it is reissued,
free of charge, when the certificate is due, and no other one is placed before its term
ends. --order names the order. Without it, vendors that have a list of orders are searched
by name and certificate. If the order is not found, the certificate is served until it is
due, and then a new order is placed.

Nothing is ordered, reissued or revoked by this command; the vendor is only queried.
With --dry-run, nothing is changed at all.

The storage is that of the config. Run the command as the user that Caddy runs as. A running
Caddy sees the certificate within half an hour, or at once after a reload with --force.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("cert", "", "File with the certificate, and possibly the private key and the chain")
	cmd.Flags().String("key", "", "File with the private key")
	cmd.Flags().StringArray("chain", nil, "File with intermediate certificates; can be repeated")
	cmd.Flags().String("pfx", "", "PKCS#12 file (.pfx, .p12)")
	cmd.Flags().String("password-file", "", "File with the password of the key or PKCS#12 file")
	cmd.Flags().String("order", "", "The vendor's ID of the order")
	cmd.Flags().Bool("no-order", false, "Do not look for an order; a new one is placed when the certificate is due")
	cmd.Flags().String("ends", "", "The day on which the paid term ends (2027-01-31), if the vendor does not tell it")
	cmd.Flags().String("vendor", "", "The vendor, or vendor/account, if the config has several for the names")
	cmd.Flags().Bool("force", false, "Replace stored certificates that last longer")
	cmd.Flags().Bool("dry-run", false, "Show what would be done, and change nothing")
	cmd.Flags().StringP("config", "c", "", "Configuration file that has the issuer and the storage")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.MarkFlagsOneRequired("cert", "pfx")
	cmd.MarkFlagsMutuallyExclusive("order", "no-order")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdImport)
	return cmd
}

// importPatience is how long an import may take: the vendor may be asked for many orders.
const importPatience = 10 * time.Minute

func cmdImport(fl caddycmd.Flags) (int, error) {
	if err := runImport(fl, os.Stdout); err != nil {
		return caddy.ExitCodeFailedStartup, printable(err)
	}
	return caddy.ExitCodeSuccess, nil
}

func runImport(fl caddycmd.Flags, w io.Writer) error {
	say := sayTo(w)
	t := takeover{orderID: strings.TrimSpace(fl.String("order")), noOrder: fl.Bool("no-order"), force: fl.Bool("force")}
	if fl.Changed("order") && t.orderID == "" {
		return errors.New("--order is empty")
	}
	if text := fl.String("ends"); text != "" {
		var err error
		if t.ends, err = endOption(text, time.Now()); err != nil {
			return err
		}
	}
	chains, err := fl.GetStringArray("chain")
	if err != nil {
		return err
	}
	read, err := readFiles(append([]string{fl.String("cert"), fl.String("key"), fl.String("pfx")}, chains...), passwords(fl.String("password-file")), say)
	if err != nil {
		return err
	}
	if t.purchased, err = choose(read, time.Now()); err != nil {
		return err
	}
	t.describe(say)

	raw, _, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return err
	}
	var config configuration
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	// An empty configuration gives the vendor Caddy's own logger. It ends with the process.
	empty, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		return err
	}
	b, err := config.buyerOf(empty, lowered(t.chain.leaf().DNSNames), fl.String("vendor"))
	if err != nil {
		return err
	}
	t.names = b.names
	storage, release, err := loadStorage(b.storage)
	if err != nil {
		return err
	}
	defer release()
	f, end := b.flowOn(storage)
	defer end()
	say("issuer: %s, account %s; storage: %s", b.iss.about.Name, b.iss.about.Account, placeOf(storage))
	say("names of the config: %s", strings.Join(t.names, ", "))
	if others := without(lowered(t.chain.leaf().DNSNames), t.names); len(others) > 0 {
		say("not in the config, or of another issuer: %s", strings.Join(others, ", "))
	}
	ctx, cancel := context.WithTimeout(empty, importPatience)
	defer cancel()
	plan, err := f.examine(ctx, t, say)
	if err != nil {
		return err
	}
	if fl.Bool("dry-run") {
		describePlan(plan, b.iss.IssuerKey(), f.ledger.Prefix, say)
		f.prospects(plan, b.ratio, say)
		say("Nothing was changed (--dry-run).")
		return nil
	}
	if err := f.carryOut(ctx, plan, say); err != nil {
		return err
	}
	f.prospects(plan, b.ratio, say)
	if len(plan.store) > 0 || plan.entry != nil {
		say("A running Caddy sees this within half an hour, or at once after: caddy reload --force")
	}
	return nil
}

// maxTermYears is more than any term that is sold.
const maxTermYears = 6

// endOption reads the end of a term as a person gives it. Nothing is bought before that day.
func endOption(text string, now time.Time) (time.Time, error) {
	ends, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return ends, fmt.Errorf("--ends: must be a day such as 2027-01-31, got %q", text)
	}
	if ends.After(now.AddDate(maxTermYears, 0, 0)) {
		return ends, fmt.Errorf("--ends: no term is paid for more than %d years from now, got %q", maxTermYears, text)
	}
	return ends, nil
}

// flowOn returns a flow that is attached to no line of the scheduler: it does only what it is
// called for. end must be called.
func (b *buyer) flowOn(storage certmagic.Storage) (f *flow, end func()) {
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		Logger:           zap.NewNop(),
	})
	magic = certmagic.New(cache, certmagic.Config{
		Storage: storage, RenewalWindowRatio: b.ratio, Logger: zap.NewNop(), OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	account := newAccount()
	iss := b.iss
	return &flow{
		vendor: iss.vendor, about: iss.about, order: iss.order, rules: iss.rules,
		ledger:  &ledger.Ledger{Storage: storage, Prefix: ledger.Prefix(iss.about.Name, iss.about.Account), Memory: &account.ledger},
		account: account, site: &magicSite{magic: magic, issuerKey: iss.IssuerKey()}, logger: iss.logger,
	}, cache.Stop
}

// readFiles reads all files that are given, each once. Empty names are skipped.
func readFiles(files []string, password bundle.Password, say say) (*bundle.Contents, error) {
	read := new(bundle.Contents)
	var done []string
	for _, file := range files {
		if file == "" || slices.Contains(done, file) {
			continue
		}
		done = append(done, file)
		certs, keys := len(read.Certificates), len(read.Keys)
		if err := read.Read(file, password); err != nil {
			return nil, err
		}
		for _, cert := range read.Certificates[certs:] {
			what := "certificate for " + namesIn(cert.Certificate)
			if cert.IsCA {
				what = fmt.Sprintf("certificate of the CA %q", nameOf(cert.Certificate))
			}
			say("%s: %s, until %s", file, what, cert.NotAfter.UTC().Format(time.DateOnly))
		}
		for _, key := range read.Keys[keys:] {
			say("%s: private key, %s", file, keyKind(key.Public()))
		}
		if len(read.Keys) > keys && isPublic(file) {
			say("warning: %s has a private key and can be read by all users of this machine; chmod 600 it, or remove it when it is imported", file)
		}
	}
	return read, nil
}

// isPublic reports whether all users can read the file.
func isPublic(file string) bool {
	info, err := os.Stat(file)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0
}

// passwords reads passwords from the file, or asks for them on the terminal.
func passwords(file string) bundle.Password {
	return func(encrypted string) (string, error) {
		if file != "" {
			data, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("reading the password: %w", err)
			}
			password, ended := strings.CutSuffix(string(data), "\n")
			if ended {
				password = strings.TrimSuffix(password, "\r")
			}
			return password, nil
		}
		in := int(os.Stdin.Fd())
		if !term.IsTerminal(in) {
			return "", errors.New("it is encrypted, and there is no terminal to ask for its password; give --password-file")
		}
		fmt.Fprintf(os.Stderr, "password of %s: ", encrypted)
		password, err := term.ReadPassword(in)
		fmt.Fprintln(os.Stderr)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return string(password), nil
	}
}

// describe tells what will be served.
func (p *purchased) describe(say say) {
	leaf := p.chain.leaf()
	say("certificate: %s; serial number %s; valid from %s to %s", namesIn(leaf), serialOf(leaf),
		leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	say("private key: %s, fits the certificate", keyKind(p.key.Public()))
	names := make([]string, 0, len(p.chain))
	for _, cert := range p.chain[1:] {
		names = append(names, fmt.Sprintf("%q", nameOf(cert)))
	}
	if len(names) == 0 {
		names = append(names, "none, the root has issued it")
	}
	say("intermediates: %s", strings.Join(names, ", "))
	for _, note := range p.notes {
		say("%s", note)
	}
	for _, warning := range p.warnings {
		say("warning: %s", warning)
	}
}

// describePlan tells what would be changed.
func describePlan(plan *taking, issuerKey, prefix string, say say) {
	for _, name := range plan.store {
		say("would be stored: %s", strings.Join(files(issuerKey, name), ", "))
	}
	if e := plan.entry; e != nil {
		say("would be entered into the ledger: order %s for %s, as %s/entries/%s.json", e.OrderID, strings.Join(e.Names, ", "), prefix, e.ID)
	}
	if len(plan.store) == 0 && plan.entry == nil {
		say("there is nothing to do")
	}
}

// placeOf names a storage, for people.
func placeOf(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", storage)
}
