//go:build race

package issuer

// The race detector makes the longest tests ten times slower, so that it gets a part of
// them only: the model fewer histories, the deaths each seventh point, bad vendors each
// seventh row, three years one vendor. The full number runs without it.
const (
	raceEnabled = true
	raceStride  = 7
)
