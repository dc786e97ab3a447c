package model

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Tape is the source of all randomness of a history. A choice of 0 is always the harmless
// one, and a tape that has ended says 0. It records what it said, so that a history can
// be repeated and shrunk. The zero value is an empty tape.
type Tape struct {
	rnd  *rand.Rand // nil: the choices come from data
	data []uint16
	said []uint16
}

// SeedTape returns a tape of random choices.
func SeedTape(seed uint64) *Tape {
	return &Tape{rnd: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // histories must be repeatable, not secret
}

// DataTape returns a tape of the given choices.
func DataTape(choices []uint16) *Tape { return &Tape{data: choices} }

// Pick returns a number below n, which must be between 1 and 65536.
func (t *Tape) Pick(n int) int {
	var v int
	switch {
	case t.rnd != nil:
		v = t.rnd.IntN(n)
	case len(t.said) < len(t.data):
		v = int(t.data[len(t.said)]) % n
	}
	t.said = append(t.said, uint16(v))
	return v
}

// OneIn reports true once in n choices. It never does at the end of the tape.
func (t *Tape) OneIn(n int) bool { return n > 0 && t.Pick(n) == n-1 }

// Said returns the choices that were made so far.
func (t *Tape) Said() []uint16 { return t.said }

const tapePrefix = "v1."

// String returns the choices that were made so far, in the form that ParseTape reads.
// Zeros at the end are left out, because they are what an ended tape says.
func (t *Tape) String() string {
	said := t.said
	for len(said) > 0 && said[len(said)-1] == 0 {
		said = said[:len(said)-1]
	}
	var b []byte
	for i := 0; i < len(said); {
		b = binary.AppendUvarint(b, uint64(said[i]))
		if said[i] != 0 {
			i++
			continue
		}
		run := i
		for i < len(said) && said[i] == 0 {
			i++
		}
		b = binary.AppendUvarint(b, uint64(i-run)) //nolint:gosec // not negative
	}
	return tapePrefix + base64.RawURLEncoding.EncodeToString(b)
}

// maxTape bounds the choices of a tape that is read.
const maxTape = 10_000_000

// ParseTape reads what String wrote, or "seed:" and a number.
func ParseTape(s string) (*Tape, error) {
	if num, ok := strings.CutPrefix(s, "seed:"); ok {
		seed, err := strconv.ParseUint(num, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading a tape's seed: %w", err)
		}
		return SeedTape(seed), nil
	}
	enc, ok := strings.CutPrefix(s, tapePrefix)
	if !ok {
		return nil, fmt.Errorf("a tape begins with %q or with %q", tapePrefix, "seed:")
	}
	b, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil {
		return nil, fmt.Errorf("reading a tape: %w", err)
	}
	next := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errors.New("reading a tape: it is cut off")
		}
		b = b[n:]
		return v, nil
	}
	var data []uint16
	for len(b) > 0 {
		v, err := next()
		if err != nil {
			return nil, err
		}
		if v > 0xffff {
			return nil, fmt.Errorf("reading a tape: %d is not a choice", v)
		}
		run := uint64(1)
		if v == 0 {
			if run, err = next(); err != nil {
				return nil, err
			}
		}
		if run > maxTape-uint64(len(data)) {
			return nil, errors.New("reading a tape: it is too long")
		}
		for range run {
			data = append(data, uint16(v))
		}
	}
	return DataTape(data), nil
}

// Shrink leaves choices out, or makes them 0, for as long as fails returns true, and
// returns the smallest tape that it found. It ends after the given time. What fails
// reports must be a function of the tape; it is given a fresh one each time.
func Shrink(choices []uint16, limit time.Duration, fails func(*Tape) bool) []uint16 {
	end := time.Now().Add(limit)
	try := func(data []uint16) ([]uint16, bool) {
		t := DataTape(data)
		if !fails(t) {
			return nil, false
		}
		return t.Said(), true
	}
	best, ok := try(choices)
	if !ok {
		return choices
	}
	for size := max(1, len(best)/2); size >= 1 && time.Now().Before(end); {
		progress := false
		for i := 0; i < len(best) && time.Now().Before(end); {
			stop := min(i+size, len(best))
			without := append(append([]uint16(nil), best[:i]...), best[stop:]...)
			zeroed := append([]uint16(nil), best...)
			clear(zeroed[i:stop])
			smaller := false
			for _, candidate := range [][]uint16{without, zeroed} {
				if said, ok := try(candidate); ok && lighter(said, best) {
					best, smaller = said, true
					break
				}
			}
			progress = progress || smaller
			if !smaller {
				i += size
			}
		}
		if !progress || size > 64 {
			size /= 2
		}
	}
	return best
}

// lighter compares by the choices that are not 0, then by length.
func lighter(a, b []uint16) bool {
	wa, wb := weight(a), weight(b)
	return wa < wb || wa == wb && len(a) < len(b)
}

func weight(choices []uint16) int {
	n := 0
	for _, v := range choices {
		if v != 0 {
			n++
		}
	}
	return n
}
