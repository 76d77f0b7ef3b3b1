package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/store"
)

// Keys of the store.
const (
	prefix  = "audit/"
	headKey = prefix + "head" // sorts behind all indexes
)

func recordKey(index uint64) string { return fmt.Sprintf("%s%016x", prefix, index) }

// head is the value of headKey.
type head struct {
	Index uint64 `json:"index"`
	Hash  Hash   `json:"hash"`
}

// Options open a Log. Store is required.
type Options struct {
	Store store.Store
	// Anchor is the file that the signed head is appended to after each record. Empty: there is none, and a shortened chain
	// cannot be told from a short one.
	Anchor string
	// Key is the file of the signing key; it is made if missing. Default: Anchor with ".key" behind.
	Key        string
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: not registered
}

// Log is the chain of a running server. Its methods may be called from many goroutines, and several processes may share the
// store.
type Log struct {
	store   store.Store
	anchor  *anchor // nil: none
	log     *slog.Logger
	metrics *metrics

	finding error

	// turn has one slot: whose record is being written, so that the chain and the anchor have the same order. What follows
	// belongs to its holder.
	turn     chan struct{}
	head     head
	revision uint64 // of headKey
}

// ErrAnchor says that the record is durable, with the batch that [Log.Apply] was given, but could not be anchored. The next
// record's anchor will vouch for it. What was to be carried out after the record must not be.
var ErrAnchor = errors.New("the act is on record but not anchored")

// ErrOutcome says that an act was recorded and carried out, but what came of it could not be recorded.
var ErrOutcome = errors.New("the act was carried out, but its outcome is not on record")

// Open reads the head of the chain and compares it with the last anchor. A chain that is behind its anchor is no error, since
// mail must go on: it is logged, counted, and told by [Log.Finding] and each [Verify] from then on.
func Open(o Options) (*Log, error) {
	if o.Store == nil {
		return nil, errors.New("audit: no store")
	}
	l := &Log{store: o.Store, log: o.Logger, turn: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if l.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("audit metrics: %w", err)
	}
	if err := l.readHead(context.Background()); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if o.Anchor != "" {
		if l.anchor, err = openAnchor(o.Anchor, o.Key); err != nil {
			return nil, fmt.Errorf("audit anchor: %w", err)
		}
		if err := l.compare(); err != nil {
			l.finding = err
			l.metrics.broken.Set(1)
			l.log.Error("the audit chain is not the one that was anchored; \"godwit audit verify\" tells more", "error", err)
		} else if err := l.catchUp(); err != nil {
			return nil, fmt.Errorf("audit anchor: %w", err)
		}
	}
	return l, nil
}

// readHead takes the head from the store.
func (l *Log) readHead(ctx context.Context) error {
	kv, err := l.store.Get(ctx, headKey)
	if errors.Is(err, store.ErrNotFound) {
		l.head, l.revision = head{}, 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	var h head
	if err := json.Unmarshal(kv.Value, &h); err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	l.head, l.revision = h, kv.Revision
	return nil
}

// compare says how the chain contradicts the last anchor.
func (l *Log) compare() error {
	last := l.anchor.last
	if last.Index == 0 {
		return nil
	}
	if l.head.Index < last.Index {
		return fmt.Errorf("the chain ends with record %d, but record %d was anchored", l.head.Index, last.Index)
	}
	kv, err := l.store.Get(context.Background(), recordKey(last.Index))
	if err != nil {
		return fmt.Errorf("record %d was anchored: %w", last.Index, err)
	}
	if r, err := decodeRecord(kv.Value); err != nil || r.Hash != last.Hash {
		return fmt.Errorf("record %d is not the one that was anchored", last.Index)
	}
	return nil
}

// catchUp anchors a head that was written before a crash and not yet anchored.
func (l *Log) catchUp() error {
	if l.head.Index == l.anchor.last.Index {
		return nil
	}
	if err := l.anchor.open(); err != nil {
		return err
	}
	return errors.Join(l.anchor.append(l.head, time.Now()), l.anchor.close())
}

// Finding returns how the chain contradicted its anchor when it was opened; nil is the rule.
func (l *Log) Finding() error { return l.finding }

// Head returns index and hash of the last record; index 0: there is none.
func (l *Log) Head() (uint64, Hash) {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	return l.head.Index, l.head.Hash
}

// Append records an act that is about to be carried out. The record is durable and anchored when it returns nil; after an error the
// act must not be carried out.
func (l *Log) Append(ctx context.Context, a Act) error {
	_, _, err := l.write(ctx, new(store.Batch), a, 0, "")
	return err
}

// Apply writes a batch of the store and the record of it together: a crash leaves both or neither. Errors are those of
// [store.Store.Apply], ErrConflict only for keys that b expects something of, and [ErrAnchor].
func (l *Log) Apply(ctx context.Context, b *store.Batch, a Act) (revision uint64, err error) {
	_, revision, err = l.write(ctx, b, a, 0, "")
	return revision, err
}

// Do records an act, carries it out, and records what came of it: its error, or the result, if it is not nil. Without an error
// but that of the act itself everything is on record; with [ErrOutcome] the act was carried out and its record stands, but not
// that of its result.
func (l *Log) Do(ctx context.Context, a Act, act func(context.Context) (result any, err error)) error {
	of, _, err := l.write(ctx, new(store.Batch), a, 0, "")
	if err != nil {
		return err
	}
	result, failed := act(ctx)
	if failed == nil && result == nil {
		return nil
	}
	end := Act{Actor: a.Actor, Source: a.Source, Action: a.Action, Target: a.Target, After: result}
	why := ""
	if failed != nil {
		end.After, why = nil, failed.Error()
	}
	// What came of it is written even if whoever asked has gone meanwhile.
	if _, _, err := l.write(context.WithoutCancel(ctx), new(store.Batch), end, of, why); err != nil {
		return errors.Join(failed, fmt.Errorf("%w: %w", ErrOutcome, err))
	}
	return failed
}

// write adds the record of a to b and applies it. The record's index and the batch's revision are returned.
//
// A crash leaves the batch with its record, or nothing; and the anchor with the record, or one behind: Open anchors the head
// again.
func (l *Log) write(ctx context.Context, b *store.Batch, a Act, of uint64, why string) (index, revision uint64, err error) {
	r := Record{
		Actor: cut(a.Actor), Source: cut(a.Source), Action: cut(a.Action), Target: cut(a.Target), Of: of, Error: cut(why),
	}
	if r.Actor == "" || r.Action == "" {
		return 0, 0, fmt.Errorf("audit: act %q of actor %q has no name", a.Action, a.Actor)
	}
	if r.Before, err = encode(a.Before); err == nil {
		r.After, err = encode(a.After)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("audit: writing %s: %w", a.Action, err)
	}
	defer func() {
		if err != nil {
			l.metrics.failures.Inc()
		}
	}()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("audit: waiting to record %s: %w", a.Action, context.Cause(ctx))
	}
	if err := l.anchor.open(); err != nil {
		return 0, 0, fmt.Errorf("audit: the anchor cannot be written, so %s is not carried out: %w", a.Action, err)
	}
	defer func() { err = errors.Join(err, l.anchor.close()) }()
	for {
		next, revision, err := l.try(ctx, b, &r)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) && conflict.Key == headKey {
			// Another process has appended; its records come first.
			if err := l.readHead(ctx); err != nil {
				return 0, 0, fmt.Errorf("audit: %w", err)
			}
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("audit: recording %s: %w", a.Action, err)
		}
		l.head, l.revision = next, revision
		l.metrics.records.Inc()
		if err := l.anchor.append(next, r.Time); err != nil {
			return r.Index, revision, fmt.Errorf("%w: record %d of %s: %w", ErrAnchor, r.Index, a.Action, err)
		}
		return r.Index, revision, nil
	}
}

// try writes the record behind the head that is known.
func (l *Log) try(ctx context.Context, b *store.Batch, r *Record) (next head, revision uint64, err error) {
	r.Index, r.Previous = l.head.Index+1, l.head.Hash
	r.Time = time.Now().UTC().Truncate(time.Microsecond)
	r.Hash = r.sum()
	next = head{Index: r.Index, Hash: r.Hash}
	value, err := r.encode()
	if err != nil {
		return next, 0, err
	}
	top, err := json.Marshal(next)
	if err != nil {
		return next, 0, err
	}
	var all store.Batch
	for k, revision := range b.Expectations() {
		all.Expect(k, revision)
	}
	for o := range b.Operations() {
		if o.Delete {
			all.Delete(o.Key)
		} else {
			all.Put(o.Key, o.Value)
		}
	}
	all.Expect(headKey, l.revision)
	all.Put(recordKey(r.Index), value)
	all.Put(headKey, top)
	revision, err = l.store.Apply(ctx, &all)
	return next, revision, err
}

// Records yields the records from an index on, oldest first, as they were at one moment. A record that cannot be read is an
// error and ends it.
func (l *Log) Records(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return Records(ctx, l.store, from)
}

// Records is [Log.Records] for a store that no Log has open.
func Records(ctx context.Context, s store.Store, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for kv, err := range s.Scan(ctx, prefix) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			if kv.Key == headKey || kv.Key < recordKey(from) {
				continue
			}
			r, err := decodeRecord(kv.Value)
			if err != nil {
				err = &contentError{fmt.Errorf("%s: %w", kv.Key, err)}
			} else if recordKey(r.Index) != kv.Key {
				err = &contentError{fmt.Errorf("%s holds record %d", kv.Key, r.Index)}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}
