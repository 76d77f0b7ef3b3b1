package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDemoJudge holds that the demo would tell if mail were lost or doubled: it believes no single witness.
func TestDemoJudge(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "current.jsonl")
	var lines strings.Builder
	add := func(kind, message, entry, recipient, more string) {
		fmt.Fprintf(&lines, `{"id":"%d","time":"2026-03-01T12:00:00Z","type":%q,"message":%q`, lines.Len(), kind, message)
		if entry != "" {
			fmt.Fprintf(&lines, `,"entry":%q,"recipient":%q`, entry, recipient)
		}
		lines.WriteString(more + "}\n")
	}
	for _, id := range []string{"m1", "m2", "m3", "m4"} {
		add("accepted", id, "", "", `,"sender":"app@app.example","recipients":1`)
	}
	add("accepted", "r1", "", "", `,"sender":"<>","recipients":1`)
	add("deferred", "m1", "m1.0", "u@a.example", "")
	add("delivered", "m1", "m1.0", "u@a.example", "")
	add("delivered", "m2", "m2.0", "u@b.example", "")
	add("bounced", "m3", "m3.0", "u@c.example", "")
	add("delivered", "r1", "r1.0", "app@app.example", "")
	half := lines.String() + `{"id":"half`
	if err := os.WriteFile(log, []byte(half), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStory(log)
	for range 2 { // what was read is not read again
		if err := s.follow(); err != nil {
			t.Fatal(err)
		}
	}
	if s.open() != 1 || s.deferrals != 1 || s.example() != "m1" {
		t.Errorf("open %d, deferrals %d, example %s", s.open(), s.deferrals, s.example())
	}

	accepted := map[string]bool{"1 u@a.example": true, "2 u@b.example": true, "3 u@c.example": true, "4 u@d.example": true}
	for _, c := range []struct {
		name               string
		received, reported map[string]int
		want               demoResult
	}{
		{"good", map[string]int{"1 u@a.example": 1, "2 u@b.example": 1}, map[string]int{"3 u@c.example": 1},
			demoResult{}},
		{"lost", map[string]int{"1 u@a.example": 1}, map[string]int{"3 u@c.example": 1},
			demoResult{Lost: 1}},
		{"never reported", map[string]int{"1 u@a.example": 1, "2 u@b.example": 1}, nil,
			demoResult{Lost: 1}},
		{"twice", map[string]int{"1 u@a.example": 3, "2 u@b.example": 1}, map[string]int{"3 u@c.example": 1},
			demoResult{Duplicates: 2}},
	} {
		r := &demoRun{story: s, accepted: accepted, world: &world{received: c.received, reported: c.reported}}
		want := c.want
		want.Accepted, want.Delivered, want.Bounced, want.Queued, want.reports = 4, 2, 1, 1, len(c.reported)
		if diff := cmp.Diff(want, r.judge(), cmp.AllowUnexported(demoResult{})); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestDemoShares(t *testing.T) {
	t.Parallel()
	sum := 0
	for _, p := range providers() {
		sum += p.share
	}
	if sum != 100 {
		t.Errorf("shares of the providers add up to %d, want 100", sum)
	}
	few, many := demoFlags{messages: 1}.maxAge(), demoFlags{messages: 5000}.maxAge()
	if few != demoMaxAge || many <= few {
		t.Errorf("messages are given up after %s and %s", few, many)
	}
}
