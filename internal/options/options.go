// Package options parses Caddyfile blocks from a table of option names and
// targets, so that an UnmarshalCaddyfile method reads like its syntax comment.
//
// A table is strict. An unknown option, an option given twice, too few or too
// many arguments, and a block where none belongs are errors that name the
// option and end with its file and line.
//
//	func (v *Vendor) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
//		d.Next() // consume vendor name
//		return options.Parse(d, options.Table{
//			"endpoint": options.String(&v.Endpoint),
//			"timeout":  options.Duration(&v.Timeout),
//		})
//	}
package options

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Table maps the names of a block's options to what they set.
type Table map[string]Option

// Option says how one option is parsed. Make one with a constructor of this
// package; the zero value is not usable.
type Option struct {
	parse   func(d *caddyfile.Dispenser) error
	repeat  bool
	refused bool
}

// Repeatable returns the option as one that may be given several times.
func (o Option) Repeatable() Option {
	o.repeat = true
	return o
}

// Parse reads the rest of the current line, which must hold no more arguments,
// and the block that may follow. The dispenser stands on the last token before
// the block; afterwards it stands on the block's closing brace.
//
// Options named in given were already set by arguments in front of the block
// and count as given once.
func Parse(d *caddyfile.Dispenser, table Table, given ...string) error {
	if d.NextArg() {
		return d.Errf("unexpected argument '%s'", d.Val())
	}
	seen := make(map[string]bool, len(table))
	for _, name := range given {
		seen[name] = true
	}
	nesting := d.Nesting()
	for d.NextBlock(nesting) {
		if err := table.parseOption(d, seen); err != nil {
			return err
		}
	}
	if d.Nesting() != nesting {
		return d.EOFErr()
	}
	return nil
}

// parseOption parses the option whose name is the current token.
func (t Table) parseOption(d *caddyfile.Dispenser, seen map[string]bool) error {
	name := d.Val()
	option, ok := t[name]
	if !ok {
		known := slices.DeleteFunc(slices.Sorted(maps.Keys(t)), func(name string) bool { return t[name].refused })
		return d.Errf("unrecognized option '%s', known options are: %s", name, strings.Join(known, ", "))
	}
	if seen[name] && !option.repeat {
		return d.Errf("option '%s' is given twice", name)
	}
	seen[name] = true
	if err := option.parse(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("unexpected argument '%s' after option '%s'", d.Val(), name)
	}
	if atBlock(d) {
		return d.Errf("option '%s' takes no block here", name)
	}
	return nil
}

// atBlock reports whether a block opens right after the current token. It
// expects that there is no argument left on the line.
func atBlock(d *caddyfile.Dispenser) bool {
	if d.NextLine() {
		d.Prev()
		return false
	}
	// Not on another line and not an argument: an opening brace, or the end.
	if d.Next() {
		d.Prev()
		return true
	}
	return false
}
