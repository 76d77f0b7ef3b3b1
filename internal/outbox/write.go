package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
)

// drain tells what there is, until the end of the journal, and hands it to the operating system. It syncs on its way
// when it is time.
func (l *Log) drain(ctx context.Context, reader journal.Reader) (told bool, err error) {
	for ctx.Err() == nil {
		entry, err := reader.Next(ctx, false)
		if errors.Is(err, io.EOF) {
			l.metrics.lag.Set(0)
			break
		}
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return told, fmt.Errorf("reading the journal: %w", err)
		}
		told = true
		if err := l.take(entry); err != nil {
			return told, err
		}
		if len(l.buf) < flushSize {
			continue
		}
		if err := l.flush(); err != nil {
			return told, err
		}
		if now := time.Now(); now.Sub(l.flushed) >= l.options.Sync { // far behind: let the journal go as we catch up
			l.metrics.lag.Set(max(now.Sub(l.record.Time).Seconds(), 0))
			if err := l.sync(); err != nil {
				return told, err
			}
		}
	}
	refused := l.takeRefused()
	if err := l.flush(); err != nil {
		return told, err
	}
	return told || refused, nil
}

// take appends the events of one record to the buffer.
func (l *Log) take(entry journal.Entry) error {
	skip := 0
	if entry.Position == l.next.from {
		skip = l.next.skip
	}
	if err := l.decode(&l.record, entry.Kind, entry.Meta); err != nil {
		// Telling what can be told is better than telling nothing at all from here on.
		l.metrics.skipped.Inc()
		l.logger.Error("a record of the journal cannot be told as events", "position", uint64(entry.Position), "err", err)
	} else {
		if l.begun.IsZero() {
			l.begun = l.record.Time
		}
		l.buf = l.tell.append(l.buf, entry.Position, &l.record, skip)
	}
	l.next = place{from: entry.Next}
	return nil
}

// takeRefused moves the events of what was refused to the buffer.
func (l *Log) takeRefused() bool {
	l.mu.Lock()
	refused, n := l.mu.refused, l.mu.counted
	l.mu.refused, l.mu.counted = l.spare[:0], 0
	l.mu.Unlock()
	l.spare = refused
	if n == 0 {
		return false
	}
	l.buf = append(l.buf, refused...)
	l.tell.counts[event.Refused] += n
	return true
}

// flush hands the buffer to the operating system and closes the file if it has grown enough. A kill leaves what was
// flushed; a power cut any part of what was flushed since the last sync.
func (l *Log) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	if l.begun.IsZero() {
		l.begun = time.Now()
	}
	n, err := l.file.Write(l.buf)
	l.size += int64(n)
	l.dirty = true
	if err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	l.buf = l.buf[:0]
	for i, n := range l.tell.counts {
		if n > 0 {
			l.metrics.events[i].Add(float64(n))
			l.tell.counts[i] = 0
		}
	}
	if l.size >= l.limits.Load().MaxSize {
		return l.rotate(time.Now())
	}
	return nil
}

// sync makes durable what was flushed and tells the view, which may then give up what the journal holds before that.
func (l *Log) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("syncing events: %w", err)
	}
	l.dirty, l.synced, l.durable, l.flushed = false, l.size, l.next, time.Now()
	l.options.View.Advance(l.durable.from)
	return nil
}

// rotate closes the current file under its name for good. A crash leaves either the current file, or the closed one and
// a cursor that says where the next one begins.
func (l *Log) rotate(now time.Time) error {
	if err := l.sync(); err != nil {
		return err
	}
	if err := saveCursor(l.options.Dir, cursor{Position: l.durable.from, Skip: l.durable.skip}); err != nil {
		return err
	}
	name := freeName(l.options.Dir, l.begun, now)
	if err := l.file.Close(); err != nil {
		l.logger.Warn("closing the event log", "err", err)
	}
	l.file = nil
	if err := os.Rename(filepath.Join(l.options.Dir, currentName), filepath.Join(l.options.Dir, name)); err != nil {
		return fmt.Errorf("closing the event log: %w", err)
	}
	if err := l.create(); err != nil {
		return err
	}
	l.archive.nudge()
	return nil
}

// create begins a new current file.
func (l *Log) create() error {
	f, err := os.OpenFile(filepath.Join(l.options.Dir, currentName), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, filePerm)
	if err != nil {
		return fmt.Errorf("opening the event log: %w", err)
	}
	if err := syncDir(l.options.Dir); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size, l.synced, l.begun, l.dirty = f, 0, 0, time.Time{}, false
	return nil
}

// reopen lets go of the current file, which may have been moved away, and opens what stands at its name.
func (l *Log) reopen() error {
	if err := l.sync(); err != nil {
		return err
	}
	// Whatever file is found, events go on after those that are safe now.
	if err := saveCursor(l.options.Dir, cursor{Position: l.durable.from, Skip: l.durable.skip}); err != nil {
		return err
	}
	l.close()
	return l.open()
}

// rewind forgets what is not known to be durable, so that it is told again from the journal.
func (l *Log) rewind() {
	l.buf = l.buf[:0]
	clear(l.tell.counts[:])
	if l.file != nil {
		// What is behind the synced part may or may not be there; cutting it off keeps each event once in the file.
		if err := l.file.Truncate(l.synced); err != nil {
			l.logger.Warn("cutting off what is not safe", "err", err)
			l.close() // open looks at what is there
			return
		}
		l.size = l.synced
	}
	l.next = l.durable
}

func (l *Log) close() {
	if l.file == nil {
		return
	}
	if err := l.file.Close(); err != nil {
		l.logger.Warn("closing the event log", "err", err)
	}
	l.file = nil
}
