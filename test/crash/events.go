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
func readEvents(dir string) (list []told, err error) {
	err = eachLine(dir, func(e *event.Event, line []byte) { list = append(list, told{*e, sha256.Sum256(line)}) })
	return list, err
}

// eachEvent calls f with each event of a log, in order. The event is f's until it returns.
func eachEvent(dir string, f func(*event.Event)) error {
	return eachLine(dir, func(e *event.Event, _ []byte) { f(e) })
}

func eachLine(dir string, f func(e *event.Event, line []byte)) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl*"))
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	// Names begin with times and sort by them, and current.jsonl comes last.
	slices.Sort(files)
	for _, name := range files {
		if !strings.HasSuffix(name, ".jsonl") && !strings.HasSuffix(name, ".jsonl.gz") {
			continue // being made when the process died
		}
		if err := readEventFile(name, f); err != nil {
			return fmt.Errorf("read event log %s: %w", name, err)
		}
	}
	return nil
}

func readEventFile(name string, each func(e *event.Event, line []byte)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		e, err := event.ParseLine(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		each(e, lines.Bytes())
	}
	return lines.Err()
}

// token returns the token of the message that an event is about.
func (t *told) token() string { return strings.Trim(t.MessageID, "<>") }
