//go:build race

package issuer

// raceEnabled shortens the longest tests under the race detector, which makes them
// ten times slower. The full number runs without it.
const raceEnabled = true
