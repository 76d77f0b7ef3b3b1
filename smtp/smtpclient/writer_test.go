package smtpclient

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestLastLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"", ""}, {"a\r\n", ""}, {"\r\n", ""}, {"\r|\n", ""}, {"a\r||\n|", ""},
		{"a", "\r\n"}, {"a\x00", "\r\n"}, {"a\r\n|\x00", "\r\n"}, {"a\n", "\r\n"}, {"\n", "\r\n"}, {"a\r", "\n"}, {"\r", "\n"}, {"a|\r", "\n"},
		{"a\r\n|b", "\r\n"}, {"a\r\n|.", "\r\n"},
	} {
		if got := string(lastLine(bytes.Split([]byte(tc.in), []byte("|")))); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}

// recorder is a connection that takes up to limit octets.
type recorder struct {
	net.Conn
	bytes.Buffer
	limit  int
	writes int
}

var errFull = errors.New("full")

func (r *recorder) Write(p []byte) (int, error) {
	r.writes++
	if r.limit > 0 && r.Len()+len(p) > r.limit {
		n, _ := r.Buffer.Write(p[:r.limit-r.Len()])
		return n, errFull
	}
	return r.Buffer.Write(p)
}

func (r *recorder) Read([]byte) (int, error) { return 0, io.EOF }

func TestStuffing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"a\r\n", "a\r\n"}, {".", ".."}, {".\r\n.\r\n", "..\r\n..\r\n"}, {"a.b\r\n..\r\n", "a.b\r\n...\r\n"}, {"a\r\n|.b", "a\r\n..b"}, {"a\r|\n|.|.b\r\n", "a\r\n...b\r\n"},
		{"a\n.b", "a\n..b"}, {"a\r.b", "a\r.b"}, {"||.|", ".."},
	} {
		r := &recorder{}
		w := newBodyWriter(r, func() {})
		w.begin()
		lineStart := true
		for _, p := range bytes.Split([]byte(tc.in), []byte("|")) {
			lineStart = w.addStuffed(p, lineStart)
		}
		w.flush()
		if got := r.String(); got != tc.want || w.err != nil || w.sent != int64(len(tc.want)) || w.offered != w.sent {
			t.Errorf("%q: %q, %v, %d of %d", tc.in, got, w.err, w.sent, w.offered)
		}
	}
}

// TestWriterRounds: whatever the sizes, all octets leave in order, in rounds that are bounded.
func TestWriterRounds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		body          string
		piece         int
		least, rounds int
	}{
		{"one piece", strings.Repeat("x", 1<<20), 1 << 20, 32, 4},
		{"small pieces", strings.Repeat("y", 10_000), 3, 1, 14},
		{"dots", strings.Repeat(".\r\n", 5000), 1 << 14, 1, 40},
	} {
		r := &recorder{}
		rounds := 0
		w := newBodyWriter(r, func() { rounds++ })
		w.begin()
		lineStart := true
		for rest := []byte(tc.body); len(rest) > 0; {
			n := min(tc.piece, len(rest))
			lineStart = w.addStuffed(rest[:n], lineStart)
			rest = rest[n:]
		}
		w.flush()
		want := strings.ReplaceAll("\n"+tc.body, "\n.", "\n..")[1:]
		if r.String() != want || r.writes < tc.least || rounds != tc.rounds || cap(w.slices) > 2*roundSlices {
			t.Errorf("%s: same %v, %d writes, %d rounds, room for %d slices", tc.name, r.String() == want, r.writes, rounds, cap(w.slices))
		}
	}
}

func TestWriterError(t *testing.T) {
	t.Parallel()
	r := &recorder{limit: 300_000}
	w := newBodyWriter(r, func() {})
	w.begin()
	for range 10 {
		w.add(make([]byte, 100_000))
	}
	w.flush()
	if !errors.Is(w.err, errFull) || w.sent != 300_000 || w.offered != 1_000_000 {
		t.Errorf("%v, %d of %d", w.err, w.sent, w.offered)
	}
	r.limit = 0
	w.begin()
	w.add([]byte("again"))
	w.flush()
	if w.err != nil || w.sent != 5 {
		t.Errorf("%v, %d", w.err, w.sent)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for p := range phases {
		seen[p.String()] = true
	}
	for s := range statuses {
		seen[s.String()] = true
	}
	if len(seen) != int(phases)+int(statuses) || seen[""] || Phase(99).String() != "unknown" || Status(99).String() != "invalid" {
		t.Errorf("%v", seen)
	}
	o := Options{Timeouts: Timeouts{Mail: time.Second}}.withDefaults()
	if o.Timeouts.Mail != time.Second || o.Timeouts.DataDone != 10*time.Minute || o.Eager != 64<<10 || o.Logger == nil || o.Hello == "" {
		t.Errorf("%+v", o)
	}
}
