package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/strictfs"
	"github.com/godwit-mta/godwit/message"
)

// Keys of the index. Numbers are big-endian, so that keys sort like what they say.
//
//	s                                    header: version, owner, watermark, totals
//	m ID                                 message: envelope, position of its body
//	m ID index                           entry, next to its message
//	q tenant 0 domain 0 state due ID index   order of a queue: waiting, claimed, held
//	a time ID index                      waiting entries by when their age needs attention
//	r ID                                 messages with final entries that are to be reported
//	x extent                             how many messages of the index have their body in an extent, and octets
const (
	keyHeader  = 's'
	keyMessage = 'm'
	keyQueue   = 'q'
	keyAge     = 'a'
	keyReport  = 'r'
	keyExtent  = 'x'
)

const indexVersion = 1

// index is the Pebble database and nothing else: it knows keys and values, not what they mean for each other.
type index struct {
	db     *pebble.DB
	lock   *pebble.Lock
	broken atomic.Pointer[error] // set when Pebble gave up

	memtable uint64 // octets of a table in memory

	flushes atomic.Int64 // how often Pebble wrote out tables of memory
	resting resting
}

// indexKey is what keys the index has for an entry. The zero value: none.
type indexKey struct {
	state State
	due   int64
	age   int64 // 0: none
}

// header is what a checkpoint says of itself.
type header struct {
	owner     string
	watermark journal.Position // the last record that is reflected; 0: none
	rebuild   bool             // the index is being made anew: totals lack what went with removed extents
	totals    totals
}

// totals count entries since the spool was made.
type totals struct {
	accepted uint64
	final    [len(outcomeNames)]uint64 // by outcome
}

func (t *totals) add(o *totals) {
	t.accepted += o.accepted
	for i := range t.final {
		t.final[i] += o.final[i]
	}
}

func (t *totals) settled() uint64 {
	var n uint64
	for _, f := range t.final {
		n += f
	}
	return n
}

// count adds what a record brings and makes final.
func (t *totals) count(r *Record) {
	switch r.Kind {
	case KindAccepted:
		t.accepted += uint64(len(r.Message.Recipients))
	case KindAttempted, KindSettled:
		for i := range r.Changes {
			if o := r.Changes[i].Result.Outcome; o.Final() {
				t.final[o]++
			}
		}
	}
}

type indexOptions struct {
	dir      string
	fs       vfs.FS
	memtable uint64
	cache    int64
	logger   *slog.Logger
	fatal    func(error)
	damaged  func() // called when damage is found, maybe by a compaction that nobody waits for
}

var (
	errIndexBroken = errors.New("spool: the index has failed")
	errIndexLocked = errors.New("spool: the index is in use")
	errDamaged     = errors.New("spool: the index is damaged")
)

// damaged reports whether an error says that the index is not what was written, by us or by Pebble (whose errors
// carry marks that errors.Is does not see).
func damaged(err error) bool { return errors.Is(err, errDamaged) || pebble.IsCorruptionError(err) }

// indexBlock is the size of the blocks of a table's own index: large enough that a table has one, and no index of them.
// There are no filters, since all that is looked up by its key is there.
const indexBlock = 256 << 10

// maxTables is how many tables may be in memory before writes wait for them to be written out.
const maxTables = 3

// openIndex opens or makes the database. Its writes are not synced: after a crash it is what it was at some
// checkpoint, at least the one before the last sync.
func openIndex(o indexOptions) (*index, error) {
	x := new(index)
	logger := &indexLogger{index: x, logger: o.logger, fatal: o.fatal}
	cache := pebble.NewCache(o.cache)
	defer cache.Unref()
	opts := &pebble.Options{
		FS:                          strictfs.New(o.fs, logger.fail),
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                o.memtable,
		MemTableStopWritesThreshold: maxTables,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       64,        // a checkpoint that waits for a long compaction costs more memory than reads cost time
		LBaseMaxBytes:               256 << 20, // an index of a million entries has one level less to go through
		MaxOpenFiles:                500,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      logger,
	}
	// Pebble would end the process. Whoever reads gets the error as well, and has the index rebuilt.
	opts.EventListener = &pebble.EventListener{DataCorruption: func(info pebble.DataCorruptionInfo) {
		o.logger.Error("the spool's index is damaged", "file", info.Path, "error", info.Details)
		o.damaged()
	}}
	opts.EventListener.FlushEnd = func(pebble.FlushInfo) { x.flushes.Add(1) }
	opts.Experimental.ReadSamplingMultiplier = -1 // due mail is read once, from all over: no reason to compact what it lies in
	for i := range opts.Levels {
		opts.Levels[i].IndexBlockSize = indexBlock
	}
	// Locked apart, so that an index in use is not taken for a damaged one.
	lock, err := pebble.LockDirectory(o.dir, o.fs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIndexLocked, err)
	}
	opts.Lock = lock
	db, err := pebble.Open(o.dir, opts)
	if err != nil {
		return nil, fmt.Errorf("spool: opening the index: %w", errors.Join(err, lock.Close()))
	}
	x.db, x.lock, x.memtable = db, lock, o.memtable
	return x, nil
}

func (x *index) close() error { return errors.Join(x.db.Close(), x.lock.Close()) }

// indexLogger passes on what Pebble says. Pebble's Fatalf means that a write was lost and Pebble goes on as if it
// were not: it must never simply return.
type indexLogger struct {
	index  *index
	logger *slog.Logger
	fatal  func(error)
}

func (l *indexLogger) Infof(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug("index: " + fmt.Sprintf(format, args...))
	}
}

func (l *indexLogger) Errorf(format string, args ...any) {
	l.logger.Error("index: " + fmt.Sprintf(format, args...))
}

func (l *indexLogger) Fatalf(format string, args ...any) {
	l.end(fmt.Errorf("%w: %s", errIndexBroken, fmt.Sprintf(format, args...)))
	runtime.Goexit() // whatever Options.Fatal did, nothing after the lost write is done
}

// fail is told by the file system of what Pebble would try again, or panic about. It returns only if Options.Fatal does,
// in tests: the index is broken then, and Pebble meets the error as it would have.
func (l *indexLogger) fail(cause error) { l.end(fmt.Errorf("%w: %w", errIndexBroken, cause)) }

func (l *indexLogger) end(err error) {
	if l.index.broken.CompareAndSwap(nil, &err) {
		l.logger.Error("the spool's index failed; stopping", "error", err)
	}
	l.fatal(err)
}

// err returns why the index cannot be trusted, nil if it can.
func (x *index) err() error {
	if p := x.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// commit writes a batch without syncing it.
func (x *index) commit(b *pebble.Batch) error {
	if err := errors.Join(b.Commit(pebble.NoSync), x.err()); err != nil {
		return fmt.Errorf("spool: writing the index: %w", err)
	}
	return nil
}

// tableNode is the most that a table in memory takes for a key, apart from the key and its value.
const tableNode = 200

// fills reports whether a batch is as large as one should be. A batch that would take half a table in memory is no part of
// one: Pebble keeps it beside them, for as long as nothing else has it write a table, where no bound of memory counts it.
func (x *index) fills(b *pebble.Batch) bool {
	return uint64(b.Len())+uint64(b.Count())*tableNode >= x.memtable/8*3
}

// sync makes durable all that was committed. After a crash the index is at least at this state.
func (x *index) sync() error {
	if err := errors.Join(x.db.LogData(nil, pebble.Sync), x.err()); err != nil {
		return fmt.Errorf("spool: syncing the index: %w", err)
	}
	return nil
}

func (x *index) header() (h header, found bool, err error) {
	v, closer, err := x.db.Get([]byte{keyHeader})
	if errors.Is(err, pebble.ErrNotFound) {
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	defer closer.Close()
	d := decoder{s: string(v)}
	if d.octet() != indexVersion {
		return h, false, nil
	}
	h.owner = d.string()
	h.watermark = journal.Position(d.uint())
	h.rebuild = d.octet() != 0
	h.totals.accepted = d.uint()
	for i := range h.totals.final {
		h.totals.final[i] = d.uint()
	}
	return h, d.err == nil, nil
}

func appendHeader(b []byte, h *header) []byte {
	b = append(b, indexVersion)
	b = appendString(b, h.owner)
	b = appendUint(b, uint64(h.watermark))
	b = appendBool(b, h.rebuild)
	b = appendUint(b, h.totals.accepted)
	for _, n := range h.totals.final {
		b = appendUint(b, n)
	}
	return b
}

func messageKey(b []byte, id message.ID) []byte { return append(append(b, keyMessage), id[:]...) }

func entryKey(b []byte, id message.ID, i int) []byte {
	return binary.BigEndian.AppendUint32(messageKey(b, id), uint32(i))
}

func queuePrefix(b []byte, key QueueKey) []byte {
	b = append(append(b, keyQueue), key.Tenant...)
	b = append(append(b, 0), key.Domain...)
	return append(b, 0)
}

func queueKeyOf(b []byte, key QueueKey, state State, p duePoint) []byte {
	return p.append(append(queuePrefix(b, key), byte(state)))
}

// readQueueKey takes a queue's key apart.
func readQueueKey(k []byte) (key QueueKey, state State, p duePoint, ok bool) {
	head := len(k) - pointSize - 1
	if head < 3 || k[0] != keyQueue || k[head-1] != 0 {
		return key, 0, p, false
	}
	names := k[1 : head-1]
	for i, c := range names {
		if c == 0 {
			key.Tenant, key.Domain = string(names[:i]), string(names[i+1:])
			p, ok = readPoint(k[head+1:])
			return key, State(k[head]), p, ok
		}
	}
	return key, 0, p, false
}

func ageKey(b []byte, age int64, id message.ID, i int) []byte {
	return duePoint{due: age, id: id, index: uint32(i)}.append(append(b, keyAge))
}

func reportKey(b []byte, id message.ID) []byte { return append(append(b, keyReport), id[:]...) }

func extentKey(b []byte, id journal.ExtentID) []byte {
	return binary.BigEndian.AppendUint64(append(b, keyExtent), uint64(id))
}

// messageReader reads messages of the index as they were when it was made.
type messageReader struct {
	iter  *pebble.Iterator
	key   []byte
	inRow bool // most messages are asked for one after the other
}

func (x *index) reader() (*messageReader, error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyMessage}, UpperBound: []byte{keyMessage + 1}})
	if err != nil {
		return nil, fmt.Errorf("spool: reading the index: %w", err)
	}
	return &messageReader{iter: it}, nil
}

func (r *messageReader) close() error { return r.iter.Close() }

// fetch returns a message with its entries, nil if the index does not have it. Messages in the order of their ids are
// found fastest.
func (r *messageReader) fetch(id message.ID) (*msg, error) {
	r.key = messageKey(r.key[:0], id)
	if !r.step() && (!r.iter.SeekGE(r.key) || string(r.iter.Key()) != string(r.key)) {
		return nil, r.iter.Error()
	}
	return r.current(id)
}

// step reports whether the message of r.key follows the one that was read before, and goes there.
func (r *messageReader) step() bool {
	return r.inRow && r.iter.Valid() && (string(r.iter.Key()) == string(r.key) ||
		string(r.iter.Key()) < string(r.key) && r.iter.Next() && string(r.iter.Key()) == string(r.key))
}

// current reads the message that the iterator stands on and leaves it on the message's last entry, or behind it.
func (r *messageReader) current(id message.ID) (*msg, error) {
	v, err := r.iter.ValueAndErr()
	if err != nil {
		return nil, err
	}
	d := decoder{s: string(v)}
	m := &msg{Message: new(Message)}
	d.message(m.Message)
	m.pos = journal.Position(d.uint())
	m.birth = journal.ExtentID(d.uint())
	m.failedAt = d.int()
	if d.err != nil || m.ID != id {
		return nil, fmt.Errorf("%w: message %s in the index", errDamaged, id)
	}
	m.inIndex, m.indexPos = true, m.pos
	m.entries = make([]entry, 0, min(len(m.Recipients), 4))
	// Not a key further than needed: what follows may be the graves of a thousand messages.
	for last := len(m.Recipients) - 1; (len(m.entries) == 0 || m.entries[len(m.entries)-1].Index < last) && r.iter.Next(); {
		k := r.iter.Key()
		if len(k) != 1+len(id)+4 || string(k[1:1+len(id)]) != string(id[:]) {
			break
		}
		if v, err = r.iter.ValueAndErr(); err != nil {
			return nil, err
		}
		d := decoder{s: string(v)}
		c := Change{Message: m.Message}
		d.change(&c, nil)
		if d.err != nil || c.Index > last || c.State == 0 || c.Index != int(binary.BigEndian.Uint32(k[1+len(id):])) {
			return nil, fmt.Errorf("%w: entry %s.%d in the index", errDamaged, id, c.Index)
		}
		m.entries = append(m.entries, entry{})
		e := &m.entries[len(m.entries)-1]
		e.Message, e.Index = m.Message, c.Index
		e.full(&c)
		e.key = e.wantedKey()
	}
	if err := r.iter.Error(); err != nil {
		return nil, err
	}
	for i := range m.entries { // the slice does not grow any more
		m.entries[i].msg = m
	}
	m.recount()
	m.indexDue = m.reports > 0
	return m, nil
}

// wantedKey returns the keys that the index must have for the entry's state.
func (e *entry) wantedKey() indexKey {
	switch {
	case e.gone:
		return indexKey{}
	case e.State == Waiting:
		return indexKey{state: Waiting, due: e.due, age: e.age()}
	default:
		return indexKey{state: e.State, due: e.due}
	}
}

// indexWriter gathers what a checkpoint writes.
type indexWriter struct {
	batch *pebble.Batch
	key   []byte
	value []byte
}

func (w *indexWriter) set() error    { return w.batch.Set(w.key, w.value, nil) }
func (w *indexWriter) delete() error { return w.batch.Delete(w.key, nil) }

// entry writes what changed of e.
func (w *indexWriter) entry(e *entry) error {
	want, have := e.wantedKey(), e.key
	id := e.msg.ID
	var err error
	if have.state != 0 && have.state != Final && (have.state != want.state || have.due != want.due) {
		w.key = queueKeyOf(w.key[:0], e.Entry.Queue(), have.state, duePoint{due: have.due, id: id, index: uint32(e.Index)})
		err = errors.Join(err, w.delete())
	}
	if have.age != 0 && have.age != want.age {
		w.key = ageKey(w.key[:0], have.age, id, e.Index)
		err = errors.Join(err, w.delete())
	}
	if want.state == 0 {
		if have.state != 0 {
			w.key = entryKey(w.key[:0], id, e.Index)
			err = errors.Join(err, w.delete())
		}
		return err
	}
	c := e.whole()
	w.key = entryKey(w.key[:0], id, e.Index)
	w.value = appendChange(w.value[:0], &c, hasAll, nil, maxIndexText)
	err = errors.Join(err, w.set())
	w.value = w.value[:0]
	if want.state != Final && (have.state != want.state || have.due != want.due) {
		w.key = queueKeyOf(w.key[:0], e.Entry.Queue(), want.state, duePoint{due: want.due, id: id, index: uint32(e.Index)})
		err = errors.Join(err, w.set())
	}
	if want.age != 0 && have.age != want.age {
		w.key = ageKey(w.key[:0], want.age, id, e.Index)
		err = errors.Join(err, w.set())
	}
	return err
}

// message writes what changed of m, with its entries.
func (w *indexWriter) message(m *msg) error {
	var err error
	id := m.ID
	for i := range m.entries {
		if e := &m.entries[i]; e.changed {
			err = errors.Join(err, w.entry(e))
		}
	}
	due := m.reports > 0
	if due != m.indexDue {
		w.key = reportKey(w.key[:0], id)
		w.value = appendInt(w.value[:0], m.failedAt)
		if due {
			err = errors.Join(err, w.set())
		} else {
			err = errors.Join(err, w.delete())
		}
	}
	switch {
	case m.left == 0 && m.inIndex:
		w.key = messageKey(w.key[:0], id)
		err = errors.Join(err, w.delete())
	case m.left > 0 && (!m.inIndex || m.indexPos != m.pos || due && !m.indexDue):
		w.key = messageKey(w.key[:0], id)
		w.value = appendMessage(w.value[:0], m.Message)
		w.value = appendUint(w.value, uint64(m.pos))
		w.value = appendUint(w.value, uint64(m.birth))
		w.value = appendInt(w.value, m.failedAt)
		err = errors.Join(err, w.set())
	}
	return err
}
