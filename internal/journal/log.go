package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Log is the journal on local files. See the package's doc for the files and what a crash leaves of them.
type Log struct {
	options Options
	fs      vfs.FS
	direct  bool // files have real descriptors: vectored writes
	logger  *slog.Logger
	metrics *metrics
	opened  time.Time

	lock    io.Closer // nil if read-only
	dir     vfs.File  // to sync names, under dirSync
	dirSync sync.Mutex
	owner   string
	epoch   uint64
	begun   ExtentID // the first segment of this opening

	end atomic.Uint64 // everything below is durable

	// segs guards the list of segments, oldest first; it changes by rolls and removals.
	segs struct {
		sync.RWMutex
		list []*segment
	}
	files  readFiles
	recent recent
	spares struct {
		sync.Mutex
		ids []ExtentID
	}
	space  space
	grown  broadcast  // the durable end has moved
	remove sync.Mutex // one removal at a time

	queue  pending
	writer writer // of the committer alone
	wake   chan struct{}
	late   sync.WaitGroup // verdicts of what was submitted after the committer had ended
	ran    atomic.Bool

	failed chan struct{}
	closed chan struct{}

	damage struct {
		sync.Mutex
		list []Damage
	}
}

var _ Journal = (*Log)(nil)

// Open opens the journal in o.Dir, or makes one, recovers it, and begins a new segment. It starts nothing.
//
// A crash during Open leaves a journal that the next Open recovers to the same records. Errors: ErrLocked, ErrFenced,
// ErrOwner, or what the file system said; then nothing is held.
func Open(o Options) (*Log, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	l := &Log{
		options: o,
		fs:      o.FS,
		direct:  reflect.TypeOf(o.FS) == reflect.TypeOf(vfs.Default), // a wrapper wants to see each write
		logger:  o.Logger,
		opened:  time.Now(),
		files:   readFiles{fs: o.FS, dir: o.Dir},
		wake:    make(chan struct{}, 1),
		failed:  make(chan struct{}),
		closed:  make(chan struct{}),
	}
	if l.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("journal metrics: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening journal %s: %w", o.Dir, err), l.release())
	}
	return l, nil
}

// Owner implements [Journal].
func (l *Log) Owner() string { return l.owner }

// Epoch implements [Journal].
func (l *Log) Epoch() uint64 { return l.epoch }

// End implements [Journal].
func (l *Log) End() Position { return Position(l.end.Load()) }

// Failed implements [Journal].
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err implements [Journal].
func (l *Log) Err() error {
	l.queue.Lock()
	defer l.queue.Unlock()
	return l.queue.failure
}

// Close implements [Journal]. It seals the current segment, so that the next Open need not walk it; a crash
// meanwhile, or a failure, costs that walk and nothing else.
func (l *Log) Close() error {
	if !l.queue.shut() {
		return nil
	}
	left := l.queue.takeAll()
	for _, b := range left {
		l.abandon(b, ErrClosed)
	}
	close(l.closed)
	l.late.Wait()
	var err error
	if l.writer.file != nil && l.Err() == nil {
		err = l.sealAtClose()
	}
	return errors.Join(err, l.release())
}

// release gives back all files and the lock.
func (l *Log) release() error {
	var errs []error
	if l.writer.file != nil {
		errs = append(errs, l.writer.file.Close())
		l.writer.file = nil
	}
	errs = append(errs, l.files.close())
	if l.dir != nil {
		errs = append(errs, l.dir.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

func (l *Log) path(name string) string { return l.fs.PathJoin(l.options.Dir, name) }

// broadcast wakes all that wait for something to change. It costs nothing when nobody waits.
type broadcast struct {
	mu      sync.Mutex
	waiting chan struct{}
}

// wait returns a channel that is closed at the next notify.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == nil {
		b.waiting = make(chan struct{})
	}
	return b.waiting
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting != nil {
		close(b.waiting)
		b.waiting = nil
	}
}
