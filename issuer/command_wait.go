package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-commercial/caddy-commercial/internal/poll"
	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

func waitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait (<name> | <order>)",
		Short: "Waits until an order has its certificate",
		Long: `Waits until the newest order for a name, or the order with an ID, has its certificate, and
shows its state meanwhile. If there is no order for the name yet, it waits for one. It fails
if the order needs a decision, and when the time is up.`,
		Args: cobra.ExactArgs(1),
	}
	deskFlags(cmd)
	cmd.Flags().Duration("timeout", 0, "How long to wait; without it, until it is there")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
		return atDesk(fl, func(ctx context.Context, d *desk) error {
			if limit := fl.Duration("timeout"); limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("there is no certificate after %s", limit))
				defer cancel()
			}
			return await(ctx, d.show, fl.Arg(0), newTicker(os.Stdout))
		})
	})
	return cmd
}

// lookAgain is how often a command that waits looks.
const lookAgain = 2 * time.Second

// await waits for the certificate of an order.
func await(ctx context.Context, show func(context.Context, string) ([]operator.Story, error), about string, t *ticker) error {
	defer t.end()
	began := time.Now()
	for {
		stories, err := show(ctx, about)
		if err != nil && !errors.Is(err, operator.ErrUnknown) && !errors.Is(err, errNotFound) {
			return err
		}
		state := "there is no order yet"
		if len(stories) > 0 {
			switch s := stories[0]; {
			case s.Flag != "":
				return fmt.Errorf("order %s for %s needs a decision: %s; %s", s.OrderID, s.Name, s.Flag, s.Next)
			case s.State == string(ledger.Issued) && !s.Certificate.Lost:
				t.say(progressOf(s))
				return nil
			default:
				state = progressOf(s)
			}
		}
		t.show(state, time.Since(began))
		if err := poll.Wait(ctx, lookAgain); err != nil {
			return context.Cause(ctx)
		}
	}
}

// progressOf tells in one line how an order stands.
func progressOf(s operator.Story) string {
	parts := []string{s.State}
	if s.OrderID != "" {
		parts = append(parts, "order "+s.OrderID)
	}
	if s.State == string(ledger.Issued) && s.Certificate != nil {
		parts = append(parts, fmt.Sprintf("serial number %s, until %s", s.Certificate.Serial, s.Certificate.NotAfter.UTC().Format(time.DateOnly)))
	}
	if d := s.Doing; d != nil && s.State != string(ledger.Issued) {
		if d.Said != "" {
			parts = append(parts, d.Said)
		} else if d.Waits != "" {
			parts = append(parts, d.Waits)
		}
		if n := len(s.Visits); n > 0 {
			parts = append(parts, fmt.Sprintf("%d visits", n))
		}
		if left := time.Until(d.Next); left > 0 {
			parts = append(parts, fmt.Sprintf("next look in %s", left.Round(time.Second)))
		}
	}
	return strings.Join(parts, "; ")
}

// ticker shows progress: on a terminal in one line that changes, else a line per change.
type ticker struct {
	w        io.Writer
	width    int // of the terminal; zero for none
	last     string
	unbroken bool
}

func newTicker(f *os.File) *ticker {
	t := &ticker{w: f}
	if fd := int(f.Fd()); term.IsTerminal(fd) {
		if width, _, err := term.GetSize(fd); err == nil && width > 20 {
			t.width = width
		}
	}
	return t
}

// show shows how an order stands; on a terminal also for how long the command has waited.
func (t *ticker) show(state string, elapsed time.Duration) {
	if t.width == 0 {
		// The time until the next look changes all the time.
		if head, _, _ := strings.Cut(state, "; next look in"); head != t.last {
			t.last = head
			fmt.Fprintln(t.w, operator.Word(state))
		}
		return
	}
	line := []rune(fmt.Sprintf("%s  %s", elapsed.Round(time.Second), operator.Word(state)))
	if len(line) >= t.width {
		line = append(line[:t.width-2], '…')
	}
	fmt.Fprintf(t.w, "\r\x1b[K%s", string(line))
	t.unbroken = true
}

// say writes a line that stays.
func (t *ticker) say(text string) {
	t.end()
	fmt.Fprintln(t.w, operator.Word(text))
}

func (t *ticker) end() {
	if t.unbroken {
		fmt.Fprintln(t.w)
		t.unbroken = false
	}
}
