package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/godwit-mta/godwit/internal/strictfs"
)

// Keys in Pebble: user keys behind a letter, so that there is room for the store's own.
const (
	dataPrefix  = 'k'
	revisionKey = "r"
)

const revisionSize = 8 // big-endian, before each value

// DB is the store of one machine, over Pebble. Small memory: settings are few and read into caches by those who need
// them.
type DB struct {
	options Options
	logger  *slog.Logger
	metrics *metrics
	pebble  *pebble.DB

	opened   atomic.Bool   // Open has returned it
	turn     chan struct{} // one slot: whose batch is being applied
	revision atomic.Uint64
	sum      uint64 // see witness; guarded by turn

	// uses counts operations that look into Pebble, since it must not be used after it is closed.
	uses struct {
		sync.RWMutex
		closed bool
	}
	closed    chan struct{}
	ending    sync.Once // closes closed
	snapshots snapshots
	failure   struct {
		sync.Mutex
		err error
	}
	failed   chan struct{}
	watchers struct {
		sync.Mutex
		list []*watcher
	}
}

var _ Store = (*DB)(nil)

// Open opens the store in o.Dir, or makes one. A crash during Open leaves a store that the next Open recovers.
func Open(o Options) (*DB, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	d := &DB{
		options: o, logger: o.Logger,
		turn: make(chan struct{}, 1), closed: make(chan struct{}), failed: make(chan struct{}),
	}
	if d.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("store metrics: %w", err)
	}
	if d.pebble, err = d.openPebble(); err != nil {
		return nil, fmt.Errorf("opening store %s: %w", o.Dir, damage(err))
	}
	if err := d.guarded(func() error { return errors.Join(d.readRevision(), d.verify()) }); err != nil {
		if d.Err() == nil {
			err = errors.Join(err, d.pebble.Close())
		}
		return nil, fmt.Errorf("opening store %s: %w", o.Dir, damage(err))
	}
	d.opened.Store(true)
	return d, nil
}

// openPebble opens the engine in a goroutine of its own, since a fatal fault ends the goroutine that meets it.
func (d *DB) openPebble() (*pebble.DB, error) {
	o := d.options
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	var db *pebble.DB
	err := d.guarded(func() error {
		var err error
		db, err = pebble.Open(o.Dir, &pebble.Options{
			FS:                          strictfs.New(o.FS, d.fail),
			Cache:                       cache,
			FormatMajorVersion:          pebble.FormatValueSeparation,
			MemTableSize:                uint64(o.MemTableBytes),
			MemTableStopWritesThreshold: 2,
			MaxOpenFiles:                64,
			DisableTableStats:           true, // its goroutine outlives an Open that fails, and panics
			CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
			Logger:                      engineLogger{d},
			EventListener:               d.listener(),
		})
		return err
	})
	if err != nil && d.Err() == nil { // else the engine itself may have stopped with the lock
		err = errors.Join(err, d.heldByOther(err))
	}
	return db, err
}

// heldByOther says whether the reason that the engine did not open is another holder of its lock.
func (d *DB) heldByOther(cause error) error {
	if errors.Is(cause, os.ErrPermission) || errors.Is(cause, os.ErrNotExist) {
		return nil
	}
	lock, err := d.options.FS.Lock(d.options.FS.PathJoin(d.options.Dir, "LOCK"))
	if err != nil {
		return ErrLocked
	}
	return lock.Close()
}

func (d *DB) readRevision() error {
	value, closer, err := d.pebble.Get([]byte(revisionKey))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(value) != revisionSize {
		return errors.Join(fmt.Errorf("revision has %d octets", len(value)), closer.Close())
	}
	d.revision.Store(binary.BigEndian.Uint64(value))
	return closer.Close()
}

// Revision implements [Store].
func (d *DB) Revision() uint64 { return d.revision.Load() }

// Failed implements [Store].
func (d *DB) Failed() <-chan struct{} { return d.failed }

// Err implements [Store].
func (d *DB) Err() error {
	d.failure.Lock()
	defer d.failure.Unlock()
	return d.failure.err
}

// enter begins a use of Pebble; leave ends it.
func (d *DB) enter() error {
	if err := d.Err(); err != nil {
		return err
	}
	d.uses.RLock()
	if d.uses.closed {
		d.uses.RUnlock()
		return ErrClosed
	}
	return nil
}

func (d *DB) leave() { d.uses.RUnlock() }

// Get implements [Store].
func (d *DB) Get(ctx context.Context, key string) (KV, error) {
	if ctx.Err() != nil {
		return KV{}, context.Cause(ctx)
	}
	if err := d.enter(); err != nil {
		return KV{}, err
	}
	defer d.leave()
	return get(d.pebble, key)
}

func get(r pebble.Reader, key string) (KV, error) {
	value, closer, err := r.Get(dataKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return KV{}, fmt.Errorf("%q: %w", key, ErrNotFound)
	}
	if err != nil {
		return KV{}, fmt.Errorf("reading %q: %w", key, err)
	}
	kv, err := decode(key, value)
	return kv, errors.Join(err, closer.Close())
}

func dataKey(key string) []byte {
	return append(append(make([]byte, 0, 1+len(key)), dataPrefix), key...)
}

func decode(key string, value []byte) (KV, error) {
	if len(value) < revisionSize {
		return KV{}, fmt.Errorf("value of %q has no revision", key)
	}
	return KV{Key: key, Revision: binary.BigEndian.Uint64(value), Value: slices.Clone(value[revisionSize:])}, nil
}

// Apply implements [Store]. Batches are applied one after the other, each with a sync of its own: settings change
// seldom, and Expect needs an order.
func (d *DB) Apply(ctx context.Context, b *Batch) (uint64, error) {
	if err := b.Check(); err != nil {
		return 0, err
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting to write to the store: %w", context.Cause(ctx))
	case <-d.failed:
		return 0, d.Err()
	case <-d.closed:
		return 0, ErrClosed
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := d.enter(); err != nil {
		return 0, err
	}
	defer d.leave()
	for _, e := range b.expects {
		have, err := get(d.pebble, e.key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
		if have.Revision != e.revision {
			d.metrics.conflicts.Inc()
			return 0, &ConflictError{Key: e.key, Want: e.revision, Have: have.Revision}
		}
	}
	revision := d.revision.Load() + 1
	sum, err := d.after(b, revision)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := d.commit(b, revision); err != nil {
		return 0, err
	}
	d.metrics.apply.Observe(time.Since(begin).Seconds())
	d.metrics.applied.Inc()
	d.revision.Store(revision)
	d.sum = sum
	d.testify()
	d.tell(b, revision)
	return revision, nil
}

// commit writes b and its revision in one synced Pebble batch. A crash leaves all of it or nothing.
func (d *DB) commit(b *Batch, revision uint64) error {
	batch := d.pebble.NewBatchWithSize(b.size + 32*len(b.ops) + 64)
	var buf []byte
	for _, o := range b.ops {
		var err error
		if o.delete {
			err = batch.Delete(dataKey(o.key), nil)
		} else {
			buf = append(binary.BigEndian.AppendUint64(buf[:0], revision), o.value...)
			err = batch.Set(dataKey(o.key), buf, nil)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("writing %q: %w", o.key, err), batch.Close())
		}
	}
	err := batch.Set([]byte(revisionKey), binary.BigEndian.AppendUint64(nil, revision), nil)
	if err == nil {
		err = d.guarded(func() error { return d.pebble.Apply(batch, pebble.Sync) })
	}
	if d.Err() != nil {
		// Whatever the engine said: its log is broken.
		return d.Err()
	}
	return errors.Join(err, batch.Close())
}

// guarded runs f in a goroutine of its own and waits for it, or for the engine's failure: what meets a fatal fault
// never returns.
func (d *DB) guarded(f func() error) error {
	result := make(chan error, 1)
	go func() {
		defer close(result)
		// Where Pebble cannot even log, it panics: when a name could not be made durable.
		defer func() {
			if p := recover(); p != nil {
				d.fail(fmt.Errorf("engine panicked: %v", p))
			}
		}()
		result <- f()
	}()
	select {
	case err, ok := <-result:
		if ok {
			return err
		}
	case <-d.failed:
		// The engine may have stopped elsewhere while holding what f waits for.
	}
	return d.Err()
}

// fail marks the store as failed, ends the process by way of Options.Fatal, and never returns: an engine that went on
// after a lost write would acknowledge what is not there.
func (d *DB) fail(cause error) {
	d.failure.Lock()
	first := d.failure.err == nil
	if first {
		d.failure.err = fmt.Errorf("%w: %w", ErrFailed, cause)
		close(d.failed)
	}
	d.failure.Unlock()
	if first {
		d.metrics.failed.Set(1)
		d.logger.Error("store has failed", slog.Any("error", cause))
	}
	if d.opened.Load() { // else Open tells, and nothing is lost by it
		d.options.Fatal(cause)
	}
	select {} // not Goexit: the engine's deferred calls expect its locks as they were when it went on
}

// Close implements [Store]. Watches and scans end. All that was applied is durable already.
func (d *DB) Close() error {
	if d.Err() != nil {
		// The engine stopped in the middle of something, maybe with its locks held: it cannot be asked to end orderly.
		d.ending.Do(func() { close(d.closed) })
		return nil
	}
	d.uses.Lock()
	defer d.uses.Unlock()
	if d.uses.closed {
		return nil
	}
	d.uses.closed = true
	d.ending.Do(func() { close(d.closed) })
	var errs []error
	for _, s := range d.snapshots.takeAll() {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.guarded(d.pebble.Close))...)
}
