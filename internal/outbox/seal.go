package outbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/godwit-mta/godwit/event"
)

// Sealer encrypts what lines say of people. Of a sealed line only time, id, type and message are clear; the whole event stands in
// the field "sealed", encrypted, in base64.
type Sealer interface {
	// Sealing says whether what is written now is to be sealed. What is sealed already is opened in any case.
	Sealing() bool
	SealText(dst, text []byte) []byte
	OpenText(dst, sealed []byte) ([]byte, error)
}

// liner writes events as lines, for one goroutine.
type liner struct {
	sealer Sealer // nil: clear
	clear  []byte
	sealed []byte
}

func (l *liner) append(dst []byte, e *event.Event) []byte {
	if l.sealer == nil || !l.sealer.Sealing() {
		return append(e.AppendJSON(dst), '\n')
	}
	l.clear = e.AppendJSON(l.clear[:0])
	l.sealed = l.sealer.SealText(l.sealed[:0], l.clear)
	known := event.Event{Time: e.Time, ID: e.ID, Type: e.Type, Message: e.Message}
	dst = known.AppendJSON(dst)
	dst = append(dst[:len(dst)-1], `,"sealed":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, l.sealed)
	return append(dst, "\"}\n"...)
}

// errSealed says that a line is sealed and there is no key.
var errSealed = errors.New("the event is encrypted")

// openLine returns the clear form of a line, in memory of its own if it is sealed.
func openLine(line []byte, s Sealer) ([]byte, error) {
	if !bytes.Contains(line, []byte(`,"sealed":"`)) {
		return line, nil
	}
	var e struct {
		Sealed []byte `json:"sealed"`
	}
	if err := json.Unmarshal(line, &e); err != nil || len(e.Sealed) == 0 {
		return line, err
	}
	if s == nil {
		return line, errSealed
	}
	return s.OpenText(nil, e.Sealed)
}

// Reveal copies the events of one file to w, sealed ones opened with s, one line each. The file may be compressed. A line that
// cannot be opened is copied as it is, and counted.
func Reveal(ctx context.Context, w io.Writer, path string, s Sealer) (closed int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading events: %w", err)
	}
	defer f.Close()
	how := None
	switch filepath.Ext(path) {
	case ".gz":
		how = Gzip
	case ".zst":
		how = Zstd
	}
	r, done, err := reader(contextReader{ctx, f}, how)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", path, err)
	}
	defer done()
	lines := bufio.NewReaderSize(r, 1<<16)
	out := bufio.NewWriter(w)
	for {
		line, err := readLine(lines)
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) > 0 {
			clear, failed := openLine(line, s)
			if failed != nil {
				closed++
				clear = line
			}
			// What cannot be written is told by Flush.
			_, _ = out.Write(clear)
			_ = out.WriteByte('\n')
		}
		if errors.Is(err, io.EOF) {
			return closed, out.Flush()
		}
		if err != nil {
			return closed, errors.Join(fmt.Errorf("reading %s: %w", path, err), out.Flush())
		}
	}
}
