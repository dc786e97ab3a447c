package vendors

import "time"

// Lifetime is how long certificates last that are issued from a day on.
type Lifetime struct {
	From time.Time

	// Max is the most days that the Baseline Requirements of the CA/Browser Forum allow, and
	// Usual those that vendors issue, which is a day less.
	Max, Usual int
}

// Lifetimes are those of ballot SC-081v3, the earliest first.
var Lifetimes = []Lifetime{
	{time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC), 200, 199},
	{time.Date(2027, 3, 15, 0, 0, 0, 0, time.UTC), 100, 99},
	{time.Date(2029, 3, 15, 0, 0, 0, 0, time.UTC), 47, 46},
}

// LifetimeAt is the one of these for certificates that are issued then. Before the first of them,
// it is the first.
func LifetimeAt(lives []Lifetime, at time.Time) Lifetime {
	life := lives[0]
	for _, l := range lives {
		if !at.Before(l.From) {
			life = l
		}
	}
	return life
}
