package crash

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/event"
)

// told is one line of the event log.
type told struct {
	event.Event
	sum [sha256.Size]byte // of the line: a repeat must be the same
}

// readEvents reads an event log as any program of a user would. Every line must be an event: what a crash tears is
// cut off when the server opens the log again.
func readEvents(dir string) ([]told, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl*"))
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	// Names begin with times and sort by them, and current.jsonl comes last.
	slices.Sort(files)
	var list []told
	for _, name := range files {
		if !strings.HasSuffix(name, ".jsonl") && !strings.HasSuffix(name, ".jsonl.gz") {
			continue // being made when the process died
		}
		if list, err = readEventFile(name, list); err != nil {
			return nil, fmt.Errorf("read event log %s: %w", name, err)
		}
	}
	return list, nil
}

func readEventFile(name string, list []told) ([]told, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		e, err := event.ParseLine(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		list = append(list, told{*e, sha256.Sum256(lines.Bytes())})
	}
	return list, lines.Err()
}

// token returns the token of the message that an event is about.
func (t *told) token() string { return strings.Trim(t.MessageID, "<>") }
