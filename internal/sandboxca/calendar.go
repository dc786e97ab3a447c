package sandboxca

import "time"

// era is a set of rules that CAs follow from one day on.
type era struct {
	from time.Time

	lifetime     time.Duration // of certificates: a day less than the longest allowed
	reuse        time.Duration // how long the validation of a name may be reused
	perspectives int           // checks of each proof
	misses       int           // of them that may fail
	parameters   bool          // whether the parameters of CAA records count (RFC 8657)
	clientAuth   bool          // whether certificates have clientAuth, too
}

// eras are the rules of the CA/Browser Forum and the root programs by their effective
// dates: ballots SC-081v3 on lifetimes and reuse, SC-067 on perspectives, SC-098v2 on RFC
// 8657. The end of clientAuth is DigiCert's date; other CAs' are within the months before
// and after.
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

// keepCalendar replaces the configured rules with those in force at a moment, if Calendar
// is set.
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

// Reuse marks the names of a new order as validated if their earlier validation, by the
// same method and for the same account, may still be reused.
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
