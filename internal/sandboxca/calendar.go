package sandboxca

import "time"

// era is what CAs keep to from one day on, and vendors issue.
type era struct {
	from time.Time

	lifetime     time.Duration // of certificates: a day less than the longest allowed
	reuse        time.Duration // for how long the validation of a name counts
	perspectives int           // looks at each proof
	misses       int           // of them that may fail
	parameters   bool          // whether the parameters of CAA records count (RFC 8657)
	clientAuth   bool          // whether certificates are for clients, too
}

// eras are the first days of what the CA/Browser Forum and the root programs decided: ballot SC-081v3 about
// lifetimes and reuse, SC-067 about perspectives, SC-098v2 about RFC 8657. That certificates are not for
// clients any more is DigiCert's day; those of others are within the months before and after.
var eras = []era{
	{midnight(2000, 1, 1), 397 * day, 398 * day, 3, 1, false, true},
	{midnight(2026, 3, 15), 199 * day, 200 * day, 4, 1, false, true},
	{midnight(2026, 12, 15), 199 * day, 200 * day, 6, 2, false, true},
	{midnight(2027, 3, 1), 199 * day, 200 * day, 6, 2, false, false},
	{midnight(2027, 3, 15), 99 * day, 100 * day, 6, 2, true, false},
	{midnight(2029, 3, 15), 46 * day, 10 * day, 6, 2, true, false},
}

const day = 24 * time.Hour

func midnight(year, month, dayOfMonth int) time.Time {
	return time.Date(year, time.Month(month), dayOfMonth, 0, 0, 0, 0, time.UTC)
}

// keepCalendar puts the rules of a moment in the place of those that are configured.
func (cfg *Config) keepCalendar(now time.Time) {
	if !cfg.Calendar {
		return
	}
	rules := eras[0]
	for _, e := range eras {
		if !now.Before(e.from) {
			rules = e
		}
	}
	cfg.Lifetime, cfg.Reuse = rules.lifetime, rules.reuse
	cfg.Perspectives, cfg.Quorum = rules.perspectives, rules.perspectives-rules.misses
	cfg.ClientAuth, cfg.IgnoreCAAParameters = rules.clientAuth, !rules.parameters
}

// Reuse marks the names of a new order that were validated lately by the same method, for the same account.
func (b Books) Reuse(o *Order) {
	c, now := b.c, b.Now()
	c.cfg.keepCalendar(now)
	if c.cfg.Reuse <= 0 {
		return
	}
	for _, n := range o.Names {
		for _, prior := range c.st.byID {
			if prior.Dialect != o.Dialect || prior.Account != o.Account {
				continue
			}
			for _, p := range prior.Names {
				lately := p.Verified && p.Validated.After(n.Validated) && now.Before(p.Validated.Add(c.cfg.Reuse))
				if lately && p.Name == n.Name && p.Method == n.Method {
					n.Verified, n.Validated = true, p.Validated
				}
			}
		}
	}
	o.settle(now)
}
