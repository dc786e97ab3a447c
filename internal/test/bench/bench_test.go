package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		value float64
		want  bound
		out   string
	}{
		{5, bound{}, verdictReport},
		{30, bound{atLeast, 30, 0.1}, verdictOK},
		{27.1, bound{atLeast, 30, 0.1}, verdictNoise},
		{26.9, bound{atLeast, 30, 0.1}, verdictMissed},
		{1.5, bound{atMost, 1.5, 0.1}, verdictOK},
		{1.64, bound{atMost, 1.5, 0.1}, verdictNoise},
		{1.66, bound{atMost, 1.5, 0.1}, verdictMissed},
		{0, bound{kind: atMost}, verdictOK},
		{0.1, bound{kind: atMost}, verdictMissed},
	} {
		if got := (row{value: tc.value, want: tc.want}).verdict(); got != tc.out {
			t.Errorf("%v against %+v: got %q, want %q", tc.value, tc.want, got, tc.out)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 3},
	} {
		if got := median(tc.values); got != tc.want {
			t.Errorf("median of %v: got %v, want %v", tc.values, got, tc.want)
		}
	}
}

func TestMedianRatio(t *testing.T) {
	// The second round was disturbed, the third one for one side only.
	got := medianRatio([]float64{100, 50, 40}, []float64{50, 25, 40})
	if got != 2 {
		t.Errorf("got %v, want 2", got)
	}
}

// TestQuick judges what is counted, which is as good here as in a real run. Times are not
// judged: the race detector and other tests distort them.
func TestQuick(t *testing.T) {
	for _, b := range benches {
		if slices.Contains([]string{"site", "entries", "many", "revoked"}, b.name) {
			continue // build Caddy
		}
		t.Run(b.name, func(t *testing.T) {
			rows, err := runOne(t.Context(), b, options{quick: true, names: quickNames})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				if r.want.kind != reportOnly && r.want.margin == 0 && r.verdict() != verdictOK {
					t.Errorf("%s: %v, want %s", r.claim, r.value, r.want.format(r.unit))
				}
			}
		})
	}
}

func TestRun(t *testing.T) {
	var table bytes.Buffer
	missed, err := run(t.Context(), []string{"-quick", "-only", "flood"}, &table, io.Discard)
	if err != nil || missed != 0 {
		t.Fatalf("missed %d, %v\n%s", missed, err, &table)
	}
	if got := strings.Count(table.String(), "| ok |"); got != 4 {
		t.Errorf("the table has %d cells with ok, want its head and three claims:\n%s", got, &table)
	}
	for _, args := range [][]string{{"-only", "nothing"}, {"-only", "flood,nothing"}, {"-only", "flood,"}, {"-names", "0"}, {"file"}, {"-slow"}} {
		if _, err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestFailureKeepsTable: a bench that fails does not take away the rows before it.
func TestFailureKeepsTable(t *testing.T) {
	saved := benches
	defer func() { benches = saved }()
	broken := errors.New("broken")
	benches = []bench{
		{"good", func(context.Context, options) ([]row, error) { return []row{{claim: "measured"}}, nil }},
		{"bad", func(context.Context, options) ([]row, error) { return nil, broken }},
	}
	var table bytes.Buffer
	if _, err := run(t.Context(), nil, &table, io.Discard); !errors.Is(err, broken) || !strings.Contains(table.String(), "measured") {
		t.Errorf("%v\n%s", err, &table)
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		only string
		want []string
	}{
		{"", benchNames()},
		{"flood", []string{"flood"}},
		{"flood,file,flood", []string{"file", "flood"}},
	} {
		chosen, err := choose(tc.only)
		if err != nil {
			t.Errorf("%q: %v", tc.only, err)
		}
		var got []string
		for _, b := range chosen {
			got = append(got, b.name)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %v, want %v", tc.only, got, tc.want)
		}
	}
}

// TestQuickJudgesNothing: however slow the machine is, a quick run succeeds.
func TestQuickJudgesNothing(t *testing.T) {
	saved := benches
	defer func() { benches = saved }()
	benches = []bench{{"hopeless", func(context.Context, options) ([]row, error) {
		return []row{{claim: "hopeless", value: 1, want: bound{atLeast, 1000, 0.1}}}, nil
	}}}
	for _, tc := range []struct {
		args []string
		want int
	}{{[]string{"-quick"}, 0}, {nil, 1}} {
		if missed, err := run(t.Context(), tc.args, io.Discard, io.Discard); err != nil || missed != tc.want {
			t.Errorf("%q: missed %d, want %d, %v", tc.args, missed, tc.want, err)
		}
	}
}

// TestClient: an answer may arrive in any number of pieces.
func TestClient(t *testing.T) {
	for _, tc := range []struct {
		pieces []string
		ok     bool
	}{
		{[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, true},
		{[]string{"HTTP/1.1 200 OK\r\nContent-Le", "ngth: 5\r\n\r", "\nhel", "lo"}, true},
		{[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"}, false},
		{[]string{"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"}, false},
		{[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"}, false},
		{[]string{strings.Repeat("x", 5000)}, false},
	} {
		server, conn := net.Pipe()
		go func() {
			defer server.Close()
			if _, err := server.Read(make([]byte, 1024)); err != nil {
				return
			}
			for _, piece := range tc.pieces {
				if _, err := io.WriteString(server, piece); err != nil {
					return
				}
			}
		}()
		c := &client{conn: conn}
		err := c.wantBody("example.com", "/", "hello")
		c.close()
		if (err == nil) != tc.ok {
			t.Errorf("%q: got error %v", tc.pieces, err)
		}
	}
}
