package message

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestIDText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 30, 45, 123e6, time.UTC)
	id := NewIDs(nil).New(at)
	s := id.String()
	if len(s) != 20 || strings.ToLower(s) != s {
		t.Fatalf("text is %q", s)
	}
	if got := id.Time(); !got.Equal(at) {
		t.Errorf("Time() = %v, want %v", got, at)
	}
	back, err := ParseID(s)
	if err != nil || back != id {
		t.Errorf("ParseID(%q) = %v, %v", s, back, err)
	}
	var viaText ID
	text, _ := id.MarshalText()
	if err := viaText.UnmarshalText(text); err != nil || viaText != id {
		t.Errorf("through text: %v, %v", viaText, err)
	}
	if got := (ID{0: 0xff, 11: 1}).String(); got != "vs00000000000000000g" {
		t.Errorf("ID{0xff..01} = %q", got)
	}
}

func TestParseIDRefuses(t *testing.T) {
	t.Parallel()
	good := ID{1, 2, 3}.String()
	for _, s := range []string{
		"", "0", good[:19], good + "0", strings.ToUpper(good[:18]) + "VV", good[:19] + "1", good[:19] + "=",
		good[:18] + "\n0", strings.Repeat("\n", 20), "w" + good[1:], " " + good[1:],
	} {
		if id, err := ParseID(s); !errors.Is(err, ErrID) || !id.IsZero() {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
}

func TestIDsAreOrdered(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(1_700_000_000_000)
	sources := map[string]*IDs{
		"random": NewIDs(rand.NewChaCha8([32]byte{1})),
		"broken": NewIDs(iotest.ErrReader(errors.New("no randomness"))),
		"ones":   NewIDs(ones{}),
	}
	for name, g := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var last ID
			for i := range 20_000 {
				at := start.Add(time.Duration(i/6_000) * time.Millisecond)
				if i%1000 == 999 {
					at = at.Add(-time.Hour) // the clock goes back
				}
				id := g.New(at)
				if id.Compare(last) <= 0 || id.String() <= last.String() {
					t.Fatalf("%d: %v is not after %v", i, id, last)
				}
				last = id
			}
			if late := last.Time().Sub(start); late > 5*time.Second {
				t.Errorf("IDs run %v ahead of the clock", late)
			}
		})
	}
}

// ones gives the largest steps there are, so that milliseconds run full.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0xff
	}
	return len(p), nil
}

func TestIDsConcurrently(t *testing.T) {
	t.Parallel()
	g := NewIDs(nil)
	var mu sync.Mutex
	var all []ID
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			mine := make([]ID, 2000)
			for i := range mine {
				mine[i] = g.New(time.UnixMilli(5))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	slices.SortFunc(all, ID.Compare)
	if n := len(slices.Compact(all)); n != 8000 {
		t.Errorf("%d different of 8000", n)
	}
}

func TestIDsOutOfRangeTime(t *testing.T) {
	t.Parallel()
	g := NewIDs(bytes.NewReader(nil))
	first := g.New(time.Unix(-1e9, 0))
	if first.Time().UnixMilli() != 0 {
		t.Errorf("before 1970: %v", first.Time())
	}
	if late := g.New(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)); late.Compare(first) <= 0 {
		t.Errorf("after the last millisecond: %v", late)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(ID{}.String())
	f.Add("vvvvvvvvvvvvvvvvvvvg")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && id.String() != s {
			t.Errorf("%q parses to %v", s, id)
		}
	})
}

func BenchmarkNewID(b *testing.B) {
	g := NewIDs(nil)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		g.New(now)
	}
}
