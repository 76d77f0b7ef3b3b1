package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/message"
)

// clockSlack is how far the time in an ID and the times of events may be apart.
const clockSlack = time.Minute

const defaultFound = 10_000

// Find returns what the log holds of one message, oldest first, repeats left out. At most limit events are returned; 0
// means 10,000. It reads files from the time of the message on and stops when every recipient has its final event, so
// the life of a fresh message is found in milliseconds and that of an old one at the rate of decompression; ctx bounds
// the time. On an error what was found so far is returned with it.
func (l *Log) Find(ctx context.Context, id message.ID, limit int) ([]event.Event, error) {
	return Find(ctx, l.options.Dir, id, limit, l.options.Sealer)
}

// Find is [Log.Find] for the log in dir, whether or not a server is writing it. Of events that are sealed only what is clear is
// told if sealer is nil.
func Find(ctx context.Context, dir string, id message.ID, limit int, sealer Sealer) ([]event.Event, error) {
	if limit <= 0 {
		limit = defaultFound
	}
	s := search{
		needle: []byte(`"message":"` + id.String() + `"`), limit: limit,
		seen: make(map[string]bool), final: make(map[string]bool), sealer: sealer,
	}
	files, err := closedFiles(dir)
	if err != nil {
		return nil, err
	}
	earliest := id.Time().Add(-clockSlack)
	for _, f := range append(files, archived{name: currentName, to: time.Now().Add(clockSlack), compressed: None}) {
		if f.to.Before(earliest) {
			continue
		}
		if err := s.file(ctx, dir, f); err != nil {
			return s.found, fmt.Errorf("searching %s: %w", f.name, err)
		}
		if s.complete() {
			break
		}
	}
	return s.found, nil
}

type search struct {
	needle     []byte
	limit      int
	found      []event.Event
	seen       map[string]bool // ids
	final      map[string]bool // entries
	recipients int
	sealer     Sealer
}

// complete reports whether nothing more can be found, or is wanted.
func (s *search) complete() bool {
	return len(s.found) >= s.limit || s.recipients > 0 && len(s.final) >= s.recipients
}

func (s *search) file(ctx context.Context, dir string, f archived) error {
	file, how, err := openArchived(dir, f)
	if errors.Is(err, os.ErrNotExist) {
		return nil // deleted, or not there yet
	}
	if err != nil {
		return err
	}
	defer file.Close()
	r, done, err := reader(contextReader{ctx, file}, how)
	if err != nil {
		return err
	}
	defer done()
	return s.scan(r)
}

// scan takes what it wants from the lines of one file. Most chunks hold nothing of it and are not even cut into lines.
func (s *search) scan(r io.Reader) error {
	buf := make([]byte, 0, 1<<18)
	for {
		if len(buf) == cap(buf) { // no event is that long
			buf = buf[:0]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		end := bytes.LastIndexByte(buf, '\n') + 1
		if bytes.Contains(buf[:end], s.needle) {
			for line := range bytes.Lines(buf[:end]) {
				if bytes.Contains(line, s.needle) {
					s.take(line)
				}
				if len(s.found) >= s.limit {
					return nil
				}
			}
		}
		buf = append(buf[:0], buf[end:]...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *search) take(line []byte) {
	if clear, err := openLine(line, s.sealer); err == nil {
		line = clear
	}
	e, err := event.ParseLine(line)
	if err != nil || s.seen[e.ID] {
		return // torn at the end of the current file, or told twice
	}
	s.seen[e.ID] = true
	s.found = append(s.found, *e)
	if e.Type == event.Accepted {
		s.recipients = e.Recipients
	}
	if e.Type.Final() {
		s.final[e.Entry] = true
	}
}

// openArchived opens a file that may be compressed while it is looked for.
func openArchived(dir string, f archived) (*os.File, Compression, error) {
	file, err := os.Open(filepath.Join(dir, f.name))
	if err == nil || f.compressed != None || !errors.Is(err, os.ErrNotExist) {
		return file, f.compressed, err
	}
	stem := strings.TrimSuffix(f.name, plainEnd)
	for _, try := range []struct {
		end string
		how Compression
	}{{gzipEnd, Gzip}, {zstdEnd, Zstd}} {
		if file, err = os.Open(filepath.Join(dir, stem+try.end)); err == nil {
			return file, try.how, nil
		}
	}
	return nil, None, err
}

func reader(r io.Reader, how Compression) (_ io.Reader, done func(), err error) {
	switch how {
	case Gzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { _ = z.Close() }, nil
	case Zstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}
