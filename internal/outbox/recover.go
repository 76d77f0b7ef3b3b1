package outbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
)

const cursorName = "cursor"

// cursor says up to where the current file is known to be whole and what comes after that. It saves time and bridges a
// rotation; the lines of the current file say more.
type cursor struct {
	Position journal.Position `json:"position"`
	Skip     int              `json:"skip"`
	Offset   int64            `json:"offset"` // in the current file
}

// open opens the current file, cuts off what a crash left half-written, and sets l.next to what comes after it.
func (l *Log) open() error {
	f, err := os.OpenFile(filepath.Join(l.options.Dir, currentName), os.O_CREATE|os.O_RDWR|os.O_APPEND, filePerm)
	if err != nil {
		return fmt.Errorf("opening the event log: %w", err)
	}
	if err := l.recover(f); err != nil {
		return errors.Join(fmt.Errorf("recovering the event log: %w", err), f.Close())
	}
	l.file = f
	return nil
}

func (l *Log) recover(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	known, err := loadCursor(l.options.Dir)
	if err != nil {
		l.logger.Warn("cursor of the event log cannot be read; the whole file is looked at instead", "err", err)
	}
	offset := known.Offset
	if offset > info.Size() || !endsLine(f, offset) {
		offset = 0
	}
	next, whole, err := walk(io.NewSectionReader(f, offset, info.Size()-offset), place{known.Position, known.Skip})
	if err != nil {
		return err
	}
	good := offset + whole
	if cut := info.Size() - good; cut > 0 {
		l.logger.Warn("event log ended within a line; its end is written again", "octets", cut)
		if err := f.Truncate(good); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil { // what is only in the page cache must not count as told
		return err
	}
	if err := syncDir(l.options.Dir); err != nil {
		return err
	}
	l.size, l.synced, l.next, l.durable = good, good, next, next
	l.dirty, l.begun = false, time.Time{}
	if good > 0 {
		l.begun = firstTime(f, info.ModTime())
	}
	return nil
}

// walk reads events until the first line that is none, and returns what comes after them and how many octets they take.
func walk(r io.Reader, next place) (_ place, whole int64, err error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return next, whole, err
		}
		id, ok := lineID(line)
		if !ok {
			return next, whole, nil
		}
		if p, index, ok := parseID(id); ok {
			next = place{p, index + 1}
		}
		whole += int64(len(line))
	}
}

// endsLine reports whether a line ends at offset.
func endsLine(f *os.File, offset int64) bool {
	if offset == 0 {
		return true
	}
	var b [1]byte
	_, err := f.ReadAt(b[:], offset-1)
	return err == nil && b[0] == '\n'
}

// maxLine bounds one event. Events are bounded by their records; this is for files of others.
const maxLine = 1 << 20

// readLine returns the next line with its end; at the end of the file what there is, with io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) && len(long) < maxLine {
		line, err = r.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// lineID returns the id of an event in a whole line. Lines that were not completely written are not ok; words that only a
// newer version knows are.
func lineID(line []byte) (string, bool) {
	line, whole := bytes.CutSuffix(line, []byte("\n"))
	if !whole {
		return "", false
	}
	var e struct {
		Time time.Time `json:"time"`
		ID   string    `json:"id"`
		Type string    `json:"type"`
	}
	if err := json.Unmarshal(line, &e); err != nil || e.Time.IsZero() || e.ID == "" || e.Type == "" {
		return "", false
	}
	return e.ID, true
}

// firstTime returns the time of the first event of a file, or other if it cannot be read.
func firstTime(f io.ReaderAt, other time.Time) time.Time {
	var head [64]byte
	n, _ := f.ReadAt(head[:], 0)
	text, ok := strings.CutPrefix(string(head[:n]), `{"time":"`)
	if !ok || len(text) < len(event.TimeLayout) {
		return other
	}
	t, err := time.Parse(event.TimeLayout, text[:len(event.TimeLayout)])
	if err != nil {
		return other
	}
	return t
}

func (l *Log) saveCursor() error {
	c := cursor{Position: l.durable.from, Skip: l.durable.skip, Offset: l.synced}
	if err := saveCursor(l.options.Dir, c); err != nil {
		return err
	}
	l.saved = time.Now()
	return nil
}

// saveCursor replaces the cursor. A crash leaves the old one or the new one; both are true.
func saveCursor(dir string, c cursor) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("saving the cursor: %w", err)
	}
	temporary := filepath.Join(dir, cursorName+".tmp")
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return fmt.Errorf("saving the cursor: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("saving the cursor: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, cursorName)); err != nil {
		return fmt.Errorf("saving the cursor: %w", err)
	}
	return syncDir(dir)
}

// loadCursor returns the zero cursor if there is none.
func loadCursor(dir string) (cursor, error) {
	var c cursor
	data, err := os.ReadFile(filepath.Join(dir, cursorName))
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return cursor{}, err
	}
	if c.Skip < 0 || c.Offset < 0 {
		return cursor{}, fmt.Errorf("cursor %+v is out of range", c)
	}
	return c, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
