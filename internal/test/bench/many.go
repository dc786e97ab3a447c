package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// slowAnswer is how long a CA that is as slow as a real one takes for each answer,
	// and slowNames is how many names it certifies.
	slowAnswer = 300 * time.Millisecond
	slowNames  = 500
)

// benchMany has a Caddy get certificates for many names at once: the plugin from the
// sandbox, and certmagic's ZeroSSL issuer from a stand-in for ZeroSSL's API. Both CAs are
// processes of their own and fetch the validation file once. When they answer at once,
// they show what the machine can do at most; when they are as slow as real ones, they
// show what a visitor of the server notices meanwhile.
func benchMany(ctx context.Context, o options) ([]row, error) {
	m := &many{options: o}
	if err := m.build(ctx, &m.caddy, &m.sandbox, &m.peer); err != nil {
		return nil, err
	}
	few := min(o.names, pick(o, 200, 10))
	slow, late := min(o.names, slowNames), pick(o, slowAnswer, slowAnswer/10)
	base, err := m.base(ctx)
	if err != nil {
		return nil, err
	}
	var ofFew, ofAll, ofPeer, ofSlow, ofSlowPeer hosted
	for _, h := range []struct {
		into      *hosted
		dir, side string
		names     int
		delay     time.Duration
	}{
		{&ofFew, "few", ours, few, 0},
		{&ofAll, "all", ours, o.names, 0},
		{&ofPeer, "peer", zerossl, o.names, 0},
		{&ofSlow, "slow", ours, slow, late},
		{&ofSlowPeer, "slowpeer", zerossl, slow, late},
	} {
		if *h.into, err = m.hosting(ctx, h.dir, h.side, h.names, h.delay); err != nil {
			return nil, err
		}
	}
	each := func(h hosted, n int) float64 { return (h.cpu - base.cpu).Seconds() * 1e3 / float64(n) }
	grown := func(h hosted) float64 { return float64(h.peak-h.idle.peak) / 1024 / float64(o.names) }
	seconds := func(d time.Duration) string { return number(d.Seconds()) + " s" }
	rate := func(h hosted) float64 { return float64(h.issued) / h.wall.Seconds() }
	rows := []row{
		{
			claim: fmt.Sprintf("certificates of %d names at once, of an instant CA: names without", o.names),
			ours:  fmt.Sprint(o.names - ofAll.issued), peer: fmt.Sprint(o.names - ofPeer.issued),
			value: float64(o.names - ofAll.issued), want: bound{kind: atMost},
		},
		{
			claim: "paid calls whose answer was lost, and charges beyond one for each name",
			ours:  fmt.Sprintf("%d and %d", ofAll.lost, ofAll.charges-o.names), peer: "-",
			value: float64(ofAll.lost + max(ofAll.charges-o.names, 0)), want: bound{kind: atMost},
		},
		{
			claim: "orders that were withdrawn because they had become late",
			ours:  fmt.Sprint(ofAll.late), peer: "-", value: float64(ofAll.late), want: bound{kind: atMost},
		},
		{
			claim: fmt.Sprintf("processor time of Caddy for a certificate, of %d names, against that of %d (peer: that of ZeroSSL's issuer)", o.names, few),
			ours:  fmt.Sprintf("%s ms, %s ms", number(each(ofAll, o.names)), number(each(ofFew, few))), peer: number(each(ofPeer, o.names)) + " ms",
			value: each(ofAll, o.names) / each(ofFew, few), unit: "×", want: bound{atMost, 1.2, 0.1},
		},
		{
			claim: fmt.Sprintf("time until all %d names have their certificate, against ZeroSSL's issuer", o.names),
			ours:  seconds(ofAll.wall), peer: seconds(ofPeer.wall),
			value: float64(ofAll.wall) / float64(ofPeer.wall), unit: "×", want: bound{atMost, 1, 0.05},
		},
		{
			claim: fmt.Sprintf("peak memory for a name, over that of a Caddy with the same %d at rest", o.names),
			ours:  number(grown(ofAll)) + " KiB", peer: number(grown(ofPeer)) + " KiB",
			value: grown(ofAll), unit: " KiB", want: bound{atMost, 10, 0.1},
		},
	}
	rows = append(rows, meanwhile(ofAll, ofPeer, "meanwhile", bound{})...)
	rows = append(rows, meanwhile(ofSlow, ofSlowPeer,
		fmt.Sprintf("while %d names get certificates of a CA that takes %s for each answer", slow, late), bound{atLeast, 0.95, 0.1})...)
	return append(rows, row{
		claim: "certificates per second of that CA, against ZeroSSL's issuer",
		ours:  number(rate(ofSlow)) + "/s", peer: number(rate(ofSlowPeer)) + "/s",
		value: rate(ofSlow) / rate(ofSlowPeer), unit: "×",
	}), nil
}

// meanwhile returns the rows on what visitors notice. The ratios are those of our side.
func meanwhile(ours, peer hosted, when string, want bound) []row {
	compare := func(what string, of func(visited) time.Duration) row {
		ms := func(d time.Duration) string {
			if d == 0 {
				return "no answer"
			}
			return number(d.Seconds()*1e3) + " ms"
		}
		said := func(h hosted) string {
			text := ms(of(h.visited)) + ", at rest " + ms(of(h.idle.visited))
			if h.failed > 0 {
				text += fmt.Sprintf(" (%d of %d visits failed)", h.failed, 2*h.count)
			}
			return text
		}
		ratio := 0.0
		if busy := of(ours.visited); busy > 0 {
			ratio = float64(of(ours.idle.visited)) / float64(busy)
		}
		return row{
			claim: what + " " + when + ", median: at rest against busy",
			ours:  said(ours), peer: said(peer),
			value: ratio, unit: "×", want: want,
		}
	}
	return []row{
		compare("a TLS handshake", func(v visited) time.Duration { return v.handshake }),
		compare("a plain request", func(v visited) time.Duration { return v.request }),
	}
}
