package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
)

const (
	currentName = "current.jsonl"

	flushSize     = 128 << 10 // octets that are written at once
	maxRefused    = 1 << 20   // octets of refused events that wait to be written
	cursorEvery   = 30 * time.Second
	stopPatience  = 5 * time.Second // for telling what is left in the journal at the end
	firstBackoff  = time.Second
	fullPause     = 4 * time.Second  // between tries on a full disk
	longestPause  = 30 * time.Second // between tries of a failing disk, and between looks at what is due
	filePerm      = 0o640
	directoryPerm = 0o750
)

// Log is the event log. [Log.Refused], [Log.Reopen], [Log.SetLimits] and [Log.Find] may be called from any goroutine.
type Log struct {
	options Options
	logger  *slog.Logger
	metrics *metrics
	ids     *message.IDs // of events that have no position

	limits atomic.Pointer[Limits]

	mu struct {
		sync.Mutex
		refused []byte // lines that wait to be written
		counted int    // how many of them
		lines   liner
		reopen  bool
		wake    context.CancelFunc // ends the wait for the journal; nil when there is none
	}

	// What follows belongs to Run.
	file    *os.File
	size    int64     // octets in file
	begun   time.Time // time of the first event of file
	next    place     // what comes after the events in file and buf
	durable place     // what comes after the events that are synced
	synced  int64     // octets of file that are synced
	dirty   bool      // something was written since the last sync
	buf     []byte
	spare   []byte // swapped with mu.refused
	tell    teller
	record  spool.Record
	decode  func(*spool.Record, journal.Kind, []byte) error
	flushed time.Time // when the file was synced last
	saved   time.Time // when the cursor was saved last
	archive archive
}

// New opens the log in o.Dir and finds out where it stands: it cuts off what a crash left half-written. It starts
// nothing.
func New(o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.Dir, directoryPerm); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making the directory of the event log: %w", err)
	}
	l := &Log{
		options: o, logger: o.Logger, metrics: newMetrics(o.Registerer), ids: message.NewIDs(nil),
		decode: (*spool.Record).DecodeBorrowed,
	}
	l.mu.lines.sealer, l.tell.lines.sealer = o.Sealer, o.Sealer
	limits := o.Limits
	l.limits.Store(&limits)
	l.archive = archive{dir: o.Dir, logger: o.Logger, metrics: l.metrics, limits: &l.limits, wake: make(chan struct{}, 1)}
	if err := l.open(); err != nil {
		return nil, err
	}
	if end := o.Journal.End(); l.next.from > end {
		// Not the journal this log was written from, such as after a data directory was emptied by hand.
		l.logger.Warn("event log is ahead of the journal and begins again with the oldest record")
		l.next = place{}
	}
	l.durable, l.synced = l.next, l.size
	return l, nil
}

// SetLimits replaces the limits of the files; they count from the next event on.
func (l *Log) SetLimits(limits Limits) error {
	limits, err := limits.withDefaults()
	if err != nil {
		return err
	}
	l.limits.Store(&limits)
	l.archive.nudge()
	return nil
}

// Reopen makes the log close and open its current file, for tools that move it away.
func (l *Log) Reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.reopen = true
	l.wakeLocked()
}

// Refused writes an event that is in no journal. It never blocks; what comes faster than it can be written is dropped
// and counted. An event without an id gets one.
func (l *Log) Refused(e *event.Event) {
	if e.ID == "" {
		named := *e
		named.ID = "refused-" + l.ids.New(time.Now()).String()
		e = &named
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.refused) >= maxRefused {
		l.metrics.dropped.Inc()
		return
	}
	l.mu.refused = l.mu.lines.append(l.mu.refused, e)
	l.mu.counted++
	l.wakeLocked()
}

func (l *Log) wakeLocked() {
	if l.mu.wake != nil {
		l.mu.wake()
		l.mu.wake = nil
	}
}

// Run writes events until ctx ends, then what is left in the journal, and returns when all is synced. Failures of the
// disk are waited out. The error is that of the journal if it failed.
func (l *Log) Run(ctx context.Context) error {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	helping, end := context.WithCancel(ctx)
	defer end()
	helpers.Go(func() { l.archive.run(helping) })
	defer l.close()

	for backoff := firstBackoff; ; {
		l.options.View.Advance(l.durable.from)
		began := time.Now()
		err := l.follow(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, journal.ErrFailed):
			return fmt.Errorf("following the journal: %w", err)
		case errors.Is(err, journal.ErrClosed):
			return nil
		}
		l.metrics.errors.Inc()
		if errors.Is(err, syscall.ENOSPC) && l.options.DiskFull != nil {
			// What the log has not told holds the journal's space, so that the disk gets no emptier without it.
			l.options.DiskFull()
			backoff = min(backoff, fullPause)
		}
		if time.Since(began) > 2*longestPause {
			backoff = firstBackoff
		}
		l.logger.Error("writing the event log failed, it will be tried again", "err", err, "pause", backoff)
		select {
		case <-ctx.Done():
			return nil // what is not told is told after the next start
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, longestPause)
		l.rewind()
	}
}

// follow writes events from l.next on until ctx ends. After an error the caller rewinds and calls it again.
func (l *Log) follow(ctx context.Context) error {
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	reader, err := l.options.Journal.NewReader(l.next.from)
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer reader.Close()
	for {
		told, err := l.drain(ctx, reader)
		if err != nil {
			return err
		}
		if err := l.keep(time.Now()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return l.finish(reader)
		}
		if err := l.wait(ctx, reader, told); err != nil {
			return err
		}
	}
}

// finish tells what is durable in the journal and syncs, once ctx has ended.
func (l *Log) finish(reader journal.Reader) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if _, err := l.drain(ctx, reader); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	return l.saveCursor()
}

// keep does what time asks for: syncing, rotation, reopening.
func (l *Log) keep(now time.Time) error {
	l.mu.Lock()
	reopen := l.mu.reopen
	l.mu.reopen = false
	l.mu.Unlock()
	limits := l.limits.Load()
	switch {
	case reopen:
		return l.reopen()
	case l.size > 0 && now.Sub(l.begun) >= limits.MaxAge:
		return l.rotate(now)
	case l.dirty && now.Sub(l.flushed) >= l.options.Sync:
		if err := l.sync(); err != nil {
			return err
		}
		if now.Sub(l.saved) >= cursorEvery {
			return l.saveCursor()
		}
	}
	return nil
}

// untilDue returns how long nothing needs to be done if nothing happens.
func (l *Log) untilDue(now time.Time) time.Duration {
	pause := longestPause
	if l.size > 0 {
		pause = min(pause, l.begun.Add(l.limits.Load().MaxAge).Sub(now))
	}
	if l.dirty {
		pause = min(pause, l.flushed.Add(l.options.Sync).Sub(now))
	}
	return max(pause, 0)
}

// wait returns when there may be something to do. After a round that told something it only lets events gather;
// otherwise it sleeps until there is a record or an event, or the time of the next sync has come.
func (l *Log) wait(ctx context.Context, reader journal.Reader, told bool) error {
	if told {
		select {
		case <-ctx.Done():
		case <-time.After(l.options.Pause):
		}
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, l.untilDue(time.Now()))
	defer cancel()
	l.mu.Lock()
	if len(l.mu.refused) > 0 || l.mu.reopen {
		l.mu.Unlock()
		return nil
	}
	l.mu.wake = cancel
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.mu.wake = nil
		l.mu.Unlock()
	}()
	entry, err := reader.Next(waiting, true)
	if err != nil {
		if waiting.Err() != nil {
			return nil
		}
		return fmt.Errorf("reading the journal: %w", err)
	}
	return l.take(entry)
}
