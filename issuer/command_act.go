package issuer

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-commercial/caddy-commercial/operator"
)

// whereTo ends the help of all commands that change something.
const whereTo = `If Caddy runs, it does this when asked through its admin endpoint, and goes on at once.
If not, it is done in the storage of the config.`

func resolveCommand() *cobra.Command {
	cmd := actCommand("resolve <name> (--order <id> | --none)", "Settles what became of an order that Caddy cannot find out about",
		`Settles an entry of the ledger: after Caddy could not find out whether the vendor has the
order, after the order ended without a certificate, or whenever you know better. Look into
the vendor's portal first, as the error in the log says. --order says that the order is
there; --none that it is not, or is given up, and a new one may be placed and paid for.
What follows is shown first, with the price, and has to be confirmed. While a request may
still be on its way, the command is refused, and says until when.`)
	cmd.Flags().String("order", "", "The vendor's ID of the order")
	cmd.Flags().Bool("none", false, "There is no order")
	cmd.MarkFlagsMutuallyExclusive("order", "none")
	cmd.MarkFlagsOneRequired("order", "none")
	yesFlag(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdAct("resolve"))
	return cmd
}

func renewCommand() *cobra.Command {
	cmd := actCommand("renew (<name> | <order>)", "Reissues the certificate of a paid order now",
		`Reissues the certificate of a paid order for a new key, free of charge, before it is due:
because the key may have leaked, or to try it out. The present certificate is served until
the new one is there, and is not revoked. Nothing is ever bought by this command, so it is
refused near the end of the term, when the next order is due.`)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdAct("renew"))
	return cmd
}

func cancelCommand() *cobra.Command {
	cmd := actCommand("cancel <order>", "Cancels an order at its vendor",
		`Cancels an order at its vendor. What is refunded, until when that is possible, and whether
the certificate is revoked differs by vendor, and is shown first. Nothing is bought in its
place until you say so, with: caddy commercial resolve --none.`)
	yesFlag(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdAct("cancel"))
	return cmd
}

func revokeCommand() *cobra.Command {
	cmd := actCommand("revoke <order>", "Revokes the certificate of an order",
		`Revokes the certificate of an order at its vendor; at some vendors, all certificates of the
order. Nothing is refunded. If the order is still active, it is reissued, free of charge and
for a new key. If not, it needs a decision, and nothing is bought in its place. The note is
sent to the vendor as the reason, for example "key compromise".`)
	yesFlag(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdAct("revoke"))
	return cmd
}

func adoptCommand() *cobra.Command {
	cmd := actCommand("adopt <name> --order <id>", "Adopts an order that was bought elsewhere",
		`Enters an order that was bought elsewhere, or whose entry was lost, into the ledger, for a
name of the config. The option order does the same, but needs a change of the config. The
order counts as paid: no other one is placed before its term ends. If its certificate is
for a key that is not here, it is reissued once, free of charge.`)
	cmd.Flags().String("order", "", "The vendor's ID of the order")
	_ = cmd.MarkFlagRequired("order")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdAct("adopt"))
	return cmd
}

// actCommand is a command that changes something about one order.
func actCommand(use, short, long string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long + "\n\n" + whereTo, Args: cobra.ExactArgs(1)}
	deskFlags(cmd)
	cmd.Flags().String("vendor", "", "The vendor, or vendor/account, if several have an order for the name")
	cmd.Flags().String("entry", "", "The ledger's entry, if there are several orders for the name")
	cmd.Flags().String("note", "", "What to note about it in the history of the order")
	cmd.Flags().Bool("dry-run", false, "Show what would be done, and change nothing")
	return cmd
}

func yesFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("yes", false, "Do it without asking")
}

func actionOf(fl caddycmd.Flags) operator.Action {
	a := operator.Action{About: fl.Arg(0), Vendor: fl.String("vendor"), Entry: fl.String("entry"), Note: fl.String("note"), By: whoAmI()}
	if fl.Lookup("order") != nil {
		a.Order = fl.String("order")
	}
	if fl.Lookup("none") != nil {
		a.None = fl.Bool("none")
	}
	return a
}

// whoAmI names the person who runs the command, as far as the system knows.
func whoAmI() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return cmp.Or(os.Getenv("SUDO_USER"), name)
}

// cmdAct shows what an action would do, has it confirmed where the command has a flag for that, and
// does it, if the order is still as it was shown. resolve --order needs no confirmation: using an
// order that is there takes nothing away.
func cmdAct(what string) caddycmd.CommandFunc {
	return func(fl caddycmd.Flags) (int, error) {
		return atDesk(fl, func(ctx context.Context, d *desk) error {
			a := actionOf(fl)
			out, err := d.do(ctx, what, a)
			if err != nil {
				return err
			}
			if fl.Bool("dry-run") {
				return writePlan(out.Plan)
			}
			if err := operator.WritePlan(os.Stdout, out.Plan); err != nil {
				return err
			}
			if fl.Lookup("yes") != nil && (what != "resolve" || a.None) {
				if err := consent(fl.Bool("yes"), os.Stdin, term.IsTerminal(int(os.Stdin.Fd()))); err != nil {
					return err
				}
			}
			a.Confirm, a.Revision, a.Vendor = true, out.Plan.Revision, out.Plan.Vendor+"/"+out.Plan.Account
			if what != "adopt" {
				a.Entry = out.Plan.Entry
			}
			if out, err = d.do(ctx, what, a); err != nil {
				return err
			}
			fmt.Println(operator.Word(out.Result))
			return nil
		})
	}
}

func writePlan(p operator.Plan) error {
	err := operator.WritePlan(os.Stdout, p)
	fmt.Println("Nothing was done (--dry-run).")
	return err
}

// consent has a person agree to what was shown.
func consent(given bool, in io.Reader, terminal bool) error {
	if given {
		return nil
	}
	if !terminal {
		return errors.New("nothing was done: there is no terminal to ask on; give --yes to have it done")
	}
	fmt.Fprint(os.Stderr, "Do it? yes/no: ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// exitFindings is the exit code of reconcile if it found something.
const exitFindings = 4

func reconcileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compares the ledger with the vendors' lists of orders",
		Long: `Compares the ledger with what the vendors have. It finds orders that the ledger does not
know, entries that the vendor does not know, differences in state, certificate or end of
the term, and several orders in force for one name. A vendor that has no list of orders is
asked for each order in the ledger.

With --adopt, unknown orders in force for names of the config are entered into the ledger,
as the command adopt does. This restores a lost ledger without a new order. Stop Caddy
first, or it may order what is due.

The exit code is 0 if there are no differences, or if all were adopted, 4 if differences
remain, and 1 after an error.

` + whereTo,
		Args: cobra.NoArgs,
	}
	deskFlags(cmd)
	cmd.Flags().String("vendor", "", "Only this vendor, or vendor/account")
	cmd.Flags().Bool("adopt", false, "Adopt unknown orders in force for names of the config")
	cmd.Flags().String("note", "", "What to note about it in the history of the orders")
	cmd.Flags().Bool("dry-run", false, "Show what would be adopted, and change nothing")
	cmd.Flags().Bool("json", false, "Write JSON")
	yesFlag(cmd)
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdReconcile)
	return cmd
}

func cmdReconcile(fl caddycmd.Flags) (int, error) {
	var audits []operator.Audit
	code, err := atDesk(fl, func(ctx context.Context, d *desk) (err error) {
		r := operator.Reconciliation{Vendor: fl.String("vendor"), Adopt: fl.Bool("adopt"), Note: fl.String("note"), By: whoAmI()}
		if audits, err = d.reconcile(ctx, r); err != nil {
			return err
		}
		r.Orders = adoptable(audits)
		if r.Adopt && !fl.Bool("dry-run") && len(r.Orders) > 0 {
			if !fl.Bool("json") {
				if err := operator.WriteAudits(os.Stdout, audits); err != nil {
					return err
				}
			}
			if err := consent(fl.Bool("yes"), os.Stdin, term.IsTerminal(int(os.Stdin.Fd()))); err != nil {
				return err
			}
			r.Confirm = true
			if audits, err = d.reconcile(ctx, r); err != nil {
				return err
			}
		}
		if fl.Bool("json") {
			out := json.NewEncoder(os.Stdout)
			out.SetIndent("", "  ")
			return out.Encode(audits)
		}
		return operator.WriteAudits(os.Stdout, audits)
	})
	if err != nil {
		return code, err
	}
	findings := 0
	for _, a := range audits {
		findings += a.Open()
		if a.Problem != "" {
			err = errors.Join(err, printable(errors.New(a.Problem)))
		}
	}
	switch {
	case err != nil:
		return caddy.ExitCodeFailedStartup, err
	case findings > 0:
		return exitFindings, fmt.Errorf("the ledger and the vendors disagree on %d points", findings)
	}
	return caddy.ExitCodeSuccess, nil
}

// adoptable are the IDs of the orders that would be adopted.
func adoptable(audits []operator.Audit) (ids []string) {
	for _, a := range audits {
		for _, f := range a.Findings {
			if f.Adoptable {
				ids = append(ids, f.OrderID)
			}
		}
	}
	return ids
}
