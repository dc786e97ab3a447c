package sandboxca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	stateFile    = "state.json"
	stateVersion = 1
)

// state is everything that survives a restart. One file holds it all, so that
// an order and its charge cannot come apart.
type state struct {
	Version  int              `json:"version"`
	Sequence int64            `json:"sequence"`
	Balances map[string]int64 `json:"balances"`
	Orders   []*order         `json:"orders"`
	Charges  []Charge         `json:"charges"`

	HowSSL []*howsslDraft `json:"howssl,omitempty"` // what only that dialect knows
}

func loadState(dir string) (state, error) {
	st := state{Version: stateVersion, Balances: make(map[string]int64)}
	if dir == "" {
		return st, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return st, fmt.Errorf("%s: %w", stateFile, err)
	}
	if st.Version != stateVersion {
		return st, fmt.Errorf("%s has version %d, this sandbox knows version %d", stateFile, st.Version, stateVersion)
	}
	if st.Balances == nil {
		st.Balances = make(map[string]int64)
	}
	return st, nil
}

// save writes the state to Dir, if there is one. The lock is held.
func (c *CA) save() error {
	if c.cfg.Dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(c.st, "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.cfg.Dir, stateFile), data, 0o600)
}

// writeFile replaces a file as a whole or not at all.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func (st *state) byID(id string) *order {
	i := slices.IndexFunc(st.Orders, func(o *order) bool { return o.ID == id })
	if i < 0 {
		return nil
	}
	return st.Orders[i]
}

// byRef finds the newest order of an account with this reference.
func (st *state) byRef(account, ref string) *order {
	for _, o := range slices.Backward(st.Orders) {
		if o.Account == account && o.RefID == ref {
			return o
		}
	}
	return nil
}

// used tells whether a CSR was ordered before with the same unique value. The
// CA keeps no customers apart here, and forgets no cancelled order.
func (st *state) used(csr []byte, unique string) bool {
	return slices.ContainsFunc(st.Orders, func(o *order) bool {
		return string(o.CSR) == string(csr) && o.Unique == unique
	})
}
