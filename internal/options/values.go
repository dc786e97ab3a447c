package options

import (
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Func is an option with its own parser. The dispenser stands on the option's
// name; the parser consumes the arguments and any block, and leaves nothing of
// them behind. Its errors should come from the dispenser, which adds the place.
func Func(parse func(d *caddyfile.Dispenser) error) Option {
	return Option{parse: parse}
}

// Refused is an option that people might expect but that does not exist. Why tells them
// the reason.
func Refused(why error) Option {
	option := Func(func(d *caddyfile.Dispenser) error { return d.Errf("option '%s': %w", d.Val(), why) })
	option.refused = true
	return option
}

// Value is an option with exactly one argument, which must not be empty. An
// error of set is reported with the option's name; it must not repeat secrets.
func Value(set func(arg string) error) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.NextArg() {
			return d.Errf("option '%s' needs an argument", name)
		}
		if d.Val() == "" {
			return d.Errf("option '%s' is empty", name)
		}
		if err := set(d.Val()); err != nil {
			return d.Errf("option '%s': %w", name, err)
		}
		return nil
	})
}

// String sets a text of at least one character.
func String(target *string) Option {
	return Value(func(arg string) error {
		*target = arg
		return nil
	})
}

// Int sets a whole number between low and high, both included.
func Int(target *int, low, high int) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.NextArg() {
			return d.Errf("option '%s' needs a number", name)
		}
		n, err := strconv.Atoi(d.Val())
		if err != nil || n < low || n > high {
			return d.Errf("option '%s' must be a number from %d to %d, got '%s'", name, low, high, d.Val())
		}
		*target = n
		return nil
	})
}

// Port sets a TCP port, 1 to 65535.
func Port(target *int) Option {
	return Int(target, 1, 65535)
}

// Duration sets a duration in Caddy's notation, which knows days ("d") besides
// Go's units. A negative one is an error.
func Duration(target *caddy.Duration) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.NextArg() {
			return d.Errf("option '%s' needs a duration", name)
		}
		dur, err := caddy.ParseDuration(d.Val())
		if err != nil || dur < 0 {
			return d.Errf("option '%s' must be a duration such as %v or 2d, got '%s'", name, 90*time.Second, d.Val())
		}
		*target = caddy.Duration(dur)
		return nil
	})
}

// Flag sets true by being there. It takes no argument.
func Flag(target *bool) Option {
	return Func(func(*caddyfile.Dispenser) error {
		*target = true
		return nil
	})
}

// Args appends all arguments of the line: at least low and, unless high is 0,
// at most high of them.
func Args(target *[]string, low, high int) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		name := d.Val()
		args := d.RemainingArgs()
		if len(args) < low {
			return d.Errf("option '%s' needs at least %d argument(s), got %d", name, low, len(args))
		}
		if high > 0 && len(args) > high {
			return d.Errf("option '%s' takes at most %d argument(s), got %d", name, high, len(args))
		}
		*target = append(*target, args...)
		return nil
	})
}

// Block is an option without arguments that opens a block with its own table.
// The block itself may be missing.
func Block(table Table) Option {
	return Func(func(d *caddyfile.Dispenser) error {
		return Parse(d, table)
	})
}
