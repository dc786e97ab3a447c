//go:build race

package issuer

// The race detector makes the longest tests ten times slower, so they run only in part: the model
// with fewer histories, the deaths with every seventh point, bad vendors with every seventh row,
// three years with one vendor. Without it, they run in full.
const (
	raceEnabled = true
	raceStride  = 7
)
