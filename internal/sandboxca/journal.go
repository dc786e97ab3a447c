package sandboxca

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

const (
	journalFile    = "journal.jsonl"
	journalVersion = 2

	// oldStateFile held everything as one JSON value in version 1.
	oldStateFile = "state.json"

	// compactBelow is how many superseded entries a journal may have whatever its size;
	// beyond that, as many as it has orders.
	compactBelow = 1000

	// chargesPerLine bounds the lines of a rewritten journal.
	chargesPerLine = 100
)

// change is one line of the journal, written atomically: what belongs together, such as
// an order and its charge, is either all there or not at all.
type change struct {
	Version  int                  `json:"version,omitempty"` // in the first line only
	Sequence int64                `json:"seq,omitempty"`
	Orders   []*Order             `json:"orders,omitempty"`   // new ones
	Progress map[string]*Progress `json:"progress,omitempty"` // of older ones, by ID
	Charges  []Charge             `json:"charges,omitempty"`
	Balances map[string]int64     `json:"balances,omitempty"` // cents left, by account key
	Records  []Record             `json:"records,omitempty"`
}

// check refuses what no CA would write, so nothing else has to expect it.
func (ch *change) check() error {
	var all []*Progress
	for _, o := range ch.Orders {
		if o == nil || o.ID == "" {
			return errors.New("there is an order without an ID")
		}
		all = append(all, &o.Progress)
	}
	for _, p := range slices.AppendSeq(all, maps.Values(ch.Progress)) {
		if p == nil || len(p.Names) == 0 || slices.Contains(p.Names, nil) {
			return errors.New("there is an order without names")
		}
	}
	return nil
}

// journal appends changes to a file of a directory. Without a directory it does
// nothing.
type journal struct {
	dir  string
	size int64 // of the file as this process left it
}

func (j *journal) path() string { return filepath.Join(j.dir, journalFile) }

// openJournal reads the journal of a directory. A last line that a killed process left
// incomplete is cut off. A file most of which is superseded is rewritten.
func openJournal(dir string) (*journal, state, error) {
	j, st := &journal{dir: dir}, newState()
	if dir == "" {
		return j, st, nil
	}
	if _, err := os.Stat(filepath.Join(dir, oldStateFile)); err == nil {
		return nil, st, fmt.Errorf("%s has version 1, but this sandbox knows only version %d; use another directory", oldStateFile, journalVersion)
	}
	superseded, err := j.load(&st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return j, st, j.rewrite(&st)
	case err != nil:
		return nil, st, fmt.Errorf("%s: %w", journalFile, err)
	case superseded > max(compactBelow, len(st.orders)):
		return j, st, j.rewrite(&st)
	}
	return j, st, nil
}

// load reads the file and returns how many of its entries others supersede.
func (j *journal) load(st *state) (superseded int, err error) {
	f, err := os.Open(j.path())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, 1<<20)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if number == 1 {
				return 0, errors.New("the first line is missing")
			}
			return superseded, j.cut(len(line))
		}
		if err != nil {
			return 0, err
		}
		var ch change
		if err := json.Unmarshal(line, &ch); err != nil {
			return 0, fmt.Errorf("line %d: %w", number, err)
		}
		if err := ch.check(); err != nil {
			return 0, fmt.Errorf("line %d: %w", number, err)
		}
		if number == 1 && ch.Version != journalVersion {
			return 0, fmt.Errorf("version is %d, but this sandbox knows only version %d", ch.Version, journalVersion)
		}
		st.apply(ch)
		superseded += len(ch.Progress)
		j.size += int64(len(line))
	}
}

// cut removes an incomplete last line.
func (j *journal) cut(torn int) error {
	if torn == 0 {
		return nil
	}
	return os.Truncate(j.path(), j.size)
}

// write appends a change. Of the change, only progress may be part of the state already.
// When write returns, the kernel has the line: it survives a crash of the process, but
// not of the machine.
func (j *journal) write(ch change, st *state) error {
	if j.dir == "" {
		return nil
	}
	line, err := encodeLine(ch)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil && !j.intact(f) {
		err = errors.Join(fs.ErrNotExist, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := j.rewrite(st); err != nil {
			return err
		}
		f, err = os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND, 0)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	j.size += int64(len(line))
	return nil
}

// intact reports whether the file is as this process left it. It is not after a partial
// write.
func (j *journal) intact(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Size() == j.size
}

// rewrite replaces the file with one that holds the state and nothing superseded.
func (j *journal) rewrite(st *state) error {
	var buf bytes.Buffer
	put := func(ch change) error {
		line, err := encodeLine(ch)
		buf.Write(line)
		return err
	}
	head := change{Version: journalVersion, Sequence: st.sequence, Balances: st.balances}
	for key, data := range st.records {
		head.Records = append(head.Records, Record{key.dialect, key.key, data})
	}
	errs := []error{put(head)}
	for _, o := range st.orders {
		errs = append(errs, put(change{Orders: []*Order{o}}))
	}
	for some := range slices.Chunk(st.charges, chargesPerLine) {
		errs = append(errs, put(change{Charges: some}))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := writeFile(j.path(), buf.Bytes(), 0o600); err != nil {
		return err
	}
	j.size = int64(buf.Len())
	return nil
}

func encodeLine(ch change) ([]byte, error) {
	line, err := json.Marshal(ch)
	return append(line, '\n'), err
}

// writeFile replaces a file atomically.
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
