package outbox

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/godwit-mta/godwit/event"
)

// FuzzWalk wants whole events to be kept, up to the first line that is none, and the place of the last one to be found.
func FuzzWalk(f *testing.F) {
	golden, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	var events []byte
	for line := range bytes.Lines(golden) {
		if line[0] == '{' {
			events = append(events, line...)
		}
	}
	f.Add(events[:bytes.IndexByte(events, '\n')+1])
	f.Add(events[:1000])
	f.Add(append(bytes.Clone(events[:700]), make([]byte, 50)...))
	f.Add([]byte("\n\n"))
	f.Add([]byte(`{"time":"2026-11-21T21:33:01.000Z","id":"00000000000003e8-7","type":"held"}` + "\n{"))
	f.Fuzz(func(t *testing.T, file []byte) {
		before := place{from: 7, skip: 3}
		next, whole, err := walk(bytes.NewReader(file), before)
		if err != nil {
			t.Fatal(err)
		}
		want := before
		for line := range bytes.Lines(file[:whole]) {
			var e map[string]any
			if err := json.Unmarshal(line, &e); err != nil || line[len(line)-1] != '\n' {
				t.Fatalf("kept %q: %v", line, err)
			}
			id, _ := lineID(line)
			if p, index, ok := parseID(id); ok {
				want = place{p, index + 1}
			}
		}
		if next != want {
			t.Fatalf("goes on at %+v, want %+v", next, want)
		}
		rest := file[whole:]
		if end := bytes.IndexByte(rest, '\n'); end >= 0 && end < maxLine {
			if _, err := event.ParseLine(rest[:end+1]); err == nil {
				t.Fatalf("a whole event was cut off: %q", rest[:end+1])
			}
		}
	})
}
