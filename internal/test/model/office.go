package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-commercial/caddy-commercial/ledger"
	"github.com/caddy-commercial/caddy-commercial/operator"
)

// Office is a System in which a person can act on orders, as the commands and the admin API do.
type Office interface {
	// Desk is where a person acts: at the running server, or beside it, in its storage. Nil if no
	// config is loaded.
	Desk(running bool) *operator.Desk
}

// office is a person who acts on orders at any moment and at any server.
func (w *World) office() {
	for {
		var pause time.Duration
		w.inLoop(func() { pause = w.p.Office[w.tape.Pick(len(w.p.Office))] })
		w.sleep(pause)
		if w.over() {
			return
		}
		var v *visit
		w.inLoop(func() { v = w.visit() })
		if v == nil {
			continue
		}
		err := v.act()
		w.inLoop(func() { w.say("by hand at server %d: %s %s: %v", v.p.Server, v.what, v.name, err) })
	}
}

// visit is one act.
type visit struct {
	w *World
	p *Process
	*operator.Desk
	seller     *seller
	account    string
	vendor     string // and its account, as a person writes it
	name, what string
}

// visit draws an act. It is nil if the server is down.
func (w *World) visit() *visit {
	pick := w.tape.Pick
	p := w.servers[pick(len(w.servers))].up
	if p == nil {
		return nil
	}
	o, _ := p.system.(Office)
	if o == nil {
		return nil
	}
	desk := o.Desk(pick(2) == 0)
	if desk == nil {
		return nil
	}
	about := desk.Accounts[0].About
	v := &visit{w: w, p: p, Desk: desk, vendor: about.Name + "/" + about.Account, name: Names()[pick(len(Names()))]}
	v.seller, v.account = w.accountOf(about.Name, about.Account)
	v.what = []string{"resolve", "resolve", "adopt", "adopt", "cancel", "revoke", "renew"}[pick(7)]
	return v
}

func (v *visit) act() error {
	switch v.what {
	case "resolve":
		return v.resolve()
	case "adopt":
		return v.adopt()
	}
	return v.plain()
}

// accountOf is the account that the desk calls so.
func (w *World) accountOf(vendor, account string) (*seller, string) {
	i := slices.IndexFunc(w.sellers, func(s *seller) bool { return s.name() == vendor })
	return w.sellers[i], strings.TrimPrefix(strings.TrimPrefix(account, accountName), "/")
}

// do has something done, and counts it.
func (v *visit) do(a operator.Action) (operator.Outcome, error) {
	a.Confirm = true
	out, err := v.Do(v.p.ctx, v.what, a)
	if out.Done {
		v.w.inLoop(func() {
			v.w.result.Acts++
			v.w.say("by hand: %s", out.Result)
		})
	}
	return out, err
}

// orders are those that the vendor has for the name, whatever became of them.
func (v *visit) orders(name string) (list []*order) {
	for _, o := range v.seller.list {
		if o.account == v.account && slices.Contains(v.seller.covered(o), name) {
			list = append(list, o)
		}
	}
	return list
}

// plain renews, cancels or revokes. None of that lets anything be bought.
func (v *visit) plain() error {
	if v.what != "renew" {
		v.w.inLoop(func() {
			for _, o := range v.orders(v.name) {
				o.root.handled = true
			}
		})
	}
	_, err := v.do(operator.Action{About: v.name, Vendor: v.vendor})
	return err
}

// adopt adopts an order that was bought in the vendor's portal. From then on, it counts.
func (v *visit) adopt() error {
	a := &v.Accounts[0]
	v.w.inLoop(func() { // most names have an order, and then nothing can be adopted
		if i := slices.IndexFunc(Names(), func(name string) bool { return len(v.orders(name)) == 0 && a.Manages(name) }); i >= 0 {
			v.name = Names()[i]
		}
	})
	rules := a.Rules(v.name)
	if rules.Adopted || !a.Manages(v.name) {
		return errors.New("no order is bought by hand for it")
	}
	var o *order
	v.w.inLoop(func() {
		o = v.seller.buyByHand(v.account, rules.Group)
		o.handled = true
	})
	if o == nil {
		return ErrCrashed
	}
	term := time.Duration(a.Order(v.name).Term.Days) * day
	out, err := v.do(operator.Action{About: v.name, Vendor: v.vendor, Order: o.id})
	if err != nil {
		return err
	}
	v.w.inLoop(func() {
		o.held = holding{from: v.w.now(), until: v.w.now() + term, term: term}
		if v.w.traits.tellsTerm {
			o.held.until = o.ends
		}
		if strings.Contains(out.Result, "; ") { // a server has ordered at the same moment, as the person is told
			o.held.from += v.w.grace()
		}
	})
	return nil
}

// resolve settles an order, in truth: the person sees that it can be settled, then looks at the
// vendor's list, then decides.
func (v *visit) resolve() error {
	w := v.w
	stories, err := v.Show(v.p.ctx, v.name)
	if err != nil {
		return err
	}
	stories = slices.DeleteFunc(stories, func(s operator.Story) bool {
		return s.Entry == "" || s.State == operator.StateOver || s.State == string(ledger.Gone)
	})
	if len(stories) == 0 {
		return errors.New("there is nothing to resolve")
	}
	var s operator.Story
	w.inLoop(func() { s = stories[w.tape.Pick(len(stories))] })
	a := operator.Action{About: v.name, Entry: s.Entry, None: true}
	told, err := v.Do(v.p.ctx, v.what, a)
	if err != nil {
		return err
	}
	if s.State == string(ledger.Asked) {
		// The command goes by clocks that may be an hour apart, and these may be two.
		w.sleep(w.p.AbsenceAge)
	}
	var was, hand *order // that it is followed as, and that takes its place
	var dismissed bool
	w.inLoop(func() {
		seller, account := w.accountOf(s.Vendor, s.Account)
		if was = seller.find(account, s.OrderID, s.Request.Reference); was != nil {
			dismissed = was.root.dismissed
		}
		another := s.State != string(ledger.Asked) && w.tape.Pick(4) == 3
		switch {
		case another:
			hand = seller.buyByHand(account, s.Names)
			a.Order, a.None = hand.id, false
		case was != nil && !was.status.Ended():
			a.Order, a.None = was.id, false
			return
		}
		if was != nil {
			was.root.dismissed = true
		}
	})
	a.Revision = told.Plan.Revision
	_, err = v.do(a)
	_, refused := errors.AsType[*operator.RefusedError](err)
	done := w.now()
	if refused && was != nil { // nothing was written
		w.inLoop(func() { was.root.dismissed = dismissed })
	}
	if err != nil || hand == nil {
		return err
	}
	// A server that was writing to the entry at that very moment may have won: without
	// compare-and-swap, only a storage that is known to be late makes the command wait for that.
	// The person looks again.
	w.sleep(5 * time.Minute)
	if stories, err = v.Show(v.p.ctx, v.name); err != nil {
		return err
	}
	if !slices.ContainsFunc(stories, func(now operator.Story) bool {
		return now.Entry == s.Entry && slices.Contains([]string{now.OrderID, now.RootID}, hand.id)
	}) {
		return errors.New("it is not there any more")
	}
	// It counts for the term that was agreed for the one before it, until the vendor tells.
	var days int
	if _, err := fmt.Sscanf(s.Term, "%d days", &days); err != nil {
		return err
	}
	term := time.Duration(days) * day
	w.inLoop(func() { hand.held = holding{from: w.now(), until: done + term, term: term} })
	return nil
}

// holding is since when an order that was bought elsewhere counts, until when at least, and the
// term of which half may be given up.
type holding struct{ from, until, term time.Duration }

// byHand is the reference of what a person buys.
const byHand = "by hand"

// buyByHand buys an order in the vendor's portal, for a key that is elsewhere, or takes one that was
// bought there and not used.
func (s *seller) buyByHand(account string, names []string) *order {
	for _, o := range s.byRef[byHand] {
		if o.account == account && o.held == (holding{}) && !o.status.Ended() && o.next == nil && slices.Equal(o.names, names) {
			return o
		}
	}
	w := s.w
	o := s.create(&order{
		account: account, ref: byHand, product: "dv", names: slices.Clone(names), key: modelCA().foreign.Public(),
		term: time.Duration(w.p.Terms[w.tape.Pick(len(w.p.Terms))]) * day,
	}, nil)
	o.ours = false
	w.say("by hand: %s is bought for %v, account %q", o.id, names, account)
	return o
}
