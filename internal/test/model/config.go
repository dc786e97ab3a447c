package model

import (
	"slices"
	"time"
)

// Config is what a server is configured with, in the terms of the model. An adapter turns
// it into the real configuration.
type Config struct {
	// Names are the names to certify, sorted.
	Names []string

	// Groups are names that share one order; the first is the common name. A name is in
	// one group at most, and one that is in none has orders of its own.
	Groups [][]string

	// Adopt is the order, bought elsewhere, with which each of these names is to be
	// certified. Nothing may ever be bought for them.
	Adopt map[string]string

	// Margin is how long before the end of its term an order may be followed by another
	// one; never more than half the term.
	Margin time.Duration

	// Term is the paid term of new orders, in days.
	Term int

	// Product and Method are those of new orders.
	Product, Method string

	// Vendor is the number of the vendor, Account the label of the account there.
	Vendor  int
	Account string

	// OnDemand is whether handshakes may buy.
	OnDemand bool
}

// GroupOf returns the names that share an order with the name, itself included.
func (c Config) GroupOf(name string) []string {
	for _, g := range c.Groups {
		if slices.Contains(g, name) {
			return g
		}
	}
	return []string{name}
}

// MayBuy reports whether the config allows an order for the name.
func (c Config) MayBuy(name string) bool {
	return c.Adopt[name] == "" && (c.OnDemand || slices.Contains(c.Names, name))
}

// The names of the model. Only the first one has a twin among them.
const (
	nameA = "a.example"
	nameW = "www.a.example"
	nameB = "b.example"
	nameC = "c.example"
)

// Names returns all names that occur.
func Names() []string { return []string{nameA, nameB, nameC, nameW} }

// Twin returns the www twin of an apex name, and the other way round; empty if it has none.
func Twin(name string) string {
	switch name {
	case nameA:
		return nameW
	case nameW:
		return nameA
	}
	return ""
}

func groupings() [][][]string {
	return [][][]string{
		{}, {{nameA, nameW}}, {{nameW, nameA}}, {{nameA, nameB}}, {{nameB, nameA}}, {{nameA, nameB, nameC}},
		{{nameC, nameB}}, {{nameB, nameC}, {nameA, nameW}}, {{nameW, nameB, nameA}},
	}
}

// changed draws a config that may differ from the previous one in any respect.
func (w *World) changed(c Config, calm bool) Config {
	pick := w.tape.Pick
	c.Names = Names()
	if !calm {
		c.Names = slices.DeleteFunc(c.Names, func(string) bool { return pick(6) == 5 })
	}
	c.Groups = nil
	for _, g := range groupings()[pick(len(groupings()))] {
		g = slices.DeleteFunc(slices.Clone(g), func(n string) bool { return !slices.Contains(c.Names, n) })
		if len(g) > 0 {
			c.Groups = append(c.Groups, g)
		}
	}
	c.Margin = w.p.Margins[pick(len(w.p.Margins))]
	if calm {
		c.Margin = w.p.Margins[pick(min(2, len(w.p.Margins)))]
	}
	c.Term = w.p.Terms[pick(len(w.p.Terms))]
	c.OnDemand = pick(2) == 1
	c.Product = []string{"dv", "dv", "plus"}[pick(3)]
	c.Method = []string{"http", "http", "dns"}[pick(3)]
	if pick(8) == 7 {
		c.Vendor = 1 - c.Vendor
	}
	if pick(8) == 7 {
		c.Account = map[string]string{"": "second", "second": ""}[c.Account]
	}
	if w.market != nil && !w.market.Groups(c.Vendor) {
		c.Groups = nil
	}
	c.Adopt = nil
	if calm || pick(5) != 4 || c.Vendor != 0 || c.Account != "" {
		return c
	}
	c.Adopt = make(map[string]string)
	for _, n := range [][]string{{nameA}, {nameB, nameC}, {nameA, nameB}}[pick(3)] {
		c.Adopt[n] = w.foreign[1]
		if n == nameA {
			c.Adopt[n] = w.foreign[0]
		}
	}
	return c
}
