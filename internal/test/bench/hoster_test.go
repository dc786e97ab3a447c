package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestProgress: folders alone are not certificates, and the time is that of the latest
// certificate.
func TestProgress(t *testing.T) {
	w := &hoster{home: t.TempDir(), side: ours, names: []string{"a.example", "b.example"}}
	started := time.Now()
	p := progress{hoster: w, at: started}
	want := func(issued int) {
		t.Helper()
		if err := p.look(); err != nil || p.issued != issued {
			t.Errorf("%d names have their certificate, want %d, %v", p.issued, issued, err)
		}
	}
	folder := func(name string) string { return filepath.Join(w.storage(), "certificates", ours+"-racent", name) }
	write := func(name string, at time.Time) {
		t.Helper()
		file := filepath.Join(folder(name), name+".crt")
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
	for _, name := range w.names {
		if err := os.MkdirAll(folder(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
	write("b.example", started.Add(2*time.Second))
	want(1)
	write("a.example", started.Add(time.Second))
	want(2)
	if took := p.at.Sub(started); took != 2*time.Second {
		t.Errorf("it took %s, want the time of the latest", took)
	}
}
