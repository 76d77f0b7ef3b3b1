package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/event"
)

func TestFind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start)) // names of files are by this clock, events by that of the messages
		dir := t.TempDir()
		j := newFakeJournal()
		const forever = 100 * 365 * 24 * time.Hour
		r := run(t, dir, j, Limits{MaxSize: 5000, KeepFor: forever, MaxAge: forever})
		for i := range 10 {
			m := testMessage(i, 3)
			j.add(accepted(m), attempted(m, time.Second, deferred))
			time.Sleep(time.Second)
		}
		late := testMessage(4, 3)
		j.add(attempted(late, time.Hour, delivered))
		time.Sleep(time.Second)
		found, err := r.Find(t.Context(), late.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		counts := make(map[event.Type]int)
		for _, e := range found {
			counts[e.Type]++
			if e.Message != late.ID.String() {
				t.Errorf("event of another message: %+v", e)
			}
		}
		want := map[event.Type]int{event.Accepted: 1, event.Attempted: 2, event.Deferred: 3, event.Delivered: 3}
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("found %v, want %v", counts, want)
		}
		if some, err := r.Find(t.Context(), late.ID, 2); err != nil || len(some) != 2 {
			t.Errorf("limit: %d, %v", len(some), err)
		}
		if none, err := r.Find(t.Context(), testMessage(99, 1).ID, 0); err != nil || len(none) != 0 {
			t.Errorf("unknown message: %v, %v", none, err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Find(over, late.ID, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("no time left: %v", err)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		// Repeats, as a crash of a reader's copy may leave, are told once.
		current := filepath.Join(dir, currentName)
		data, err := os.ReadFile(current)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(current, append(data, data...), 0o644); err != nil {
			t.Fatal(err)
		}
		if again, err := Find(t.Context(), dir, late.ID, 0, nil); err != nil || len(again) != len(found) {
			t.Errorf("with repeats: %d events, %v, want %d", len(again), err, len(found))
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seen := make(map[string]bool)
	for _, end := range []string{plainEnd, gzipEnd, zstdEnd, plainEnd} {
		name := freeName(dir, start, start)
		a, ok := parseName(name)
		if !ok || a.compressed != None || !a.from.Equal(start) || seen[name] {
			t.Fatalf("%s is %+v", name, a)
		}
		seen[name] = true
		stem := name[:len(name)-len(plainEnd)]
		if err := os.WriteFile(filepath.Join(dir, stem+end), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{currentName, cursorName, "x.jsonl", "2026-1.jsonl.gz", ".jsonl", "20261121T213300.000Z.jsonl"} {
		if _, ok := parseName(other); ok {
			t.Errorf("%s is taken for a closed file", other)
		}
	}
	if files, err := closedFiles(dir); err != nil || len(files) != 4 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// TestCrashWhileCompressing leaves plain and compressed file side by side: they are one.
func TestCrashWhileCompressing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stem := filepath.Join(dir, "20261121T213300.000Z-20261121T213400.000Z")
	for name, content := range map[string]string{plainEnd: "plain\n", gzipEnd: "half", gzipEnd + unfinished: "ha"} {
		if err := os.WriteFile(stem+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir, newFakeJournal(), Limits{KeepFor: 100 * 365 * 24 * time.Hour})
	defer l.close()
	if err := l.archive.tidy(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	files, err := closedFiles(dir)
	if err != nil || len(files) != 1 || files[0].compressed != Gzip {
		t.Fatalf("%v, %v", files, err)
	}
	if data, err := os.ReadFile(unpack(t, dir, files[0])); err != nil || string(data) != "plain\n" {
		t.Errorf("%q, %v", data, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+unfinished)); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
