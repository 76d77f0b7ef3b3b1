package journaltest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/journal"
)

// mode is what happens at the chosen file operation.
type mode int

const (
	cutNone  mode = iota // power cut, nothing unsynced is kept
	cutHalf              // power cut, half of the unsynced blocks and names is kept
	cutAll               // power cut, all is kept
	kill                 // the process ends, the system goes on: what is unsynced is still that
	failOnce             // this operation fails
	failOn               // this operation and all later ones fail
	modes
)

// The seeds of one workload: each of its first cuts operations with each mode.
const cuts = 48

// Campaign runs a number of seeded random workloads. In each something happens at the k-th operation that changes the
// file system, the journal is opened again, checked, used and cut again. A failure names its seed; SEED=n in the
// environment runs that one alone.
func Campaign(t *testing.T, open Open, runs int) {
	first, last := uint64(0), uint64(runs)
	trace := func(string, ...any) {}
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		first, last, trace = n, n+1, t.Logf
	}
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		t.Run(fmt.Sprintf("part%d", w), func(t *testing.T) {
			t.Parallel()
			for seed := first + w; seed < last; seed += workers {
				if err := Seed(t, open, seed, trace); err != nil {
					t.Fatalf("SEED=%d: %v", seed, err)
				}
			}
		})
	}
}

// Seed is one run of the campaign. Its error says what the engine broke. Each file operation and verdict goes to trace.
func Seed(t *testing.T, open Open, seed uint64, trace func(format string, args ...any)) error {
	var err error
	synctest.Test(t, func(*testing.T) {
		r := &run{
			open: open, trace: trace, disk: vfs.NewCrashableMem(),
			random: rand.New(rand.NewPCG(seed/(cuts*uint64(modes)), 1)), // the same workload for all its cuts
			salts:  rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}),
			gone:   make(map[journal.ExtentID]bool),
		}
		cut := int(1 + seed/uint64(modes)%cuts)
		if err = r.life(cut, mode(seed%uint64(modes))); err != nil {
			err = fmt.Errorf("first life: %w", err)
			return
		}
		// The second life differs by seed.
		r.random = rand.New(rand.NewPCG(seed, 2))
		if err = r.life(1+r.random.IntN(cuts), mode(r.random.IntN(int(modes)))); err != nil {
			err = fmt.Errorf("second life: %w", err)
			return
		}
		if err = r.life(0, cutNone); err != nil {
			err = fmt.Errorf("third life: %w", err)
		}
	})
	return err
}

// sent is a record that was handed to the engine.
type sent struct {
	item
	batch, index, count int
	position            journal.Position // 0: not told
	written             bool             // AppendWritten returned
	must                bool             // was acknowledged before the cut, or found after one
}

// run is one seed: a disk and what was sent to it.
type run struct {
	open   Open
	trace  func(format string, args ...any)
	random *rand.Rand
	salts  io.Reader
	disk   *vfs.MemFS

	mu      sync.Mutex
	sent    []*sent // in order; after each life what is known to be there
	batches int
	gone    map[journal.ExtentID]bool // false: its removal was under way

	killed bool // the last life ended so, and no power cut since

	// Of this life.
	mode      mode
	ops       int
	cut       int
	happened  bool
	frozen    bool // what is told from now on comes too late for the disk that is kept
	kept      *vfs.MemFS
	sickFiles bool // a write or sync of a file has failed
	liars     int  // nil verdicts after that
}

// life opens the journal, checks what is there, works, and ends by the cut or in order.
func (r *run) life(cut int, m mode) error {
	r.mode, r.ops, r.cut, r.happened, r.frozen, r.kept, r.sickFiles, r.liars = m, 0, cut, false, false, nil, false, 0
	o := journal.Options{
		FS: errorfs.Wrap(r.disk, errorfs.InjectorFunc(r.operation)), Dir: dir, Owner: "me", SegmentSize: 16 << 10,
		Rand: r.salts, Spares: 1,
	}
	r.trace("opening; disk is %s", r.disk)
	j, err := r.open(o)
	if err != nil && r.happened && m == failOnce {
		// A failed Open holds nothing, and has promised nothing.
		r.sickFiles = false
		if j, err = r.open(o); err != nil {
			return fmt.Errorf("opening again after a failed Open: %w", err)
		}
	}
	if err == nil {
		err = r.use(j)
	}
	if err != nil && !r.happened {
		return err
	}
	var broken *brokenError
	if errors.As(err, &broken) {
		return err
	}
	if r.liars > 0 {
		return fmt.Errorf("%d batches were acknowledged after a write or sync had failed", r.liars)
	}
	if r.happened && m == kill {
		r.killed = true
		return nil // the next life finds the disk as it is
	}
	r.killed = false
	if r.kept == nil {
		r.kept = r.clone(0)
	}
	r.disk = r.kept
	for _, s := range r.sent {
		s.written = false
	}
	return nil
}

// brokenError is a promise that did not hold, whatever the cut did.
type brokenError struct{ error }

func broken(format string, args ...any) error { return &brokenError{fmt.Errorf(format, args...)} }

// operation is called before each file operation.
func (r *run) operation(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite && op.Kind != errorfs.OpOpen && op.Kind != errorfs.OpOpenDir {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	r.trace("operation %d: %v %s at %d", r.ops, op.Kind, op.Path, op.Offset)
	if r.happened {
		if r.mode == failOnce {
			return nil
		}
		return errorfs.ErrInjected
	}
	if r.ops != r.cut {
		return nil
	}
	r.happened = true
	r.trace("here: mode %d", r.mode)
	switch r.mode {
	case cutNone, cutHalf, cutAll:
		r.frozen = true
		r.kept = r.clone(50 * int(r.mode))
	case kill:
		r.frozen = true
	case failOnce, failOn:
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData:
			r.sickFiles = op.Path != dir && op.Path != "."
		}
	}
	return errorfs.ErrInjected
}

func (r *run) clone(percent int) *vfs.MemFS {
	return r.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent,
		RNG: rand.New(rand.NewPCG(r.random.Uint64(), 3))})
}

func (r *run) use(j journal.Journal) error {
	run := start(j)
	err := r.check(j)
	if err == nil {
		err = r.work(run)
	}
	if stopped := run.stop(); err == nil {
		err = stopped
	}
	return err
}

// work does random things until something happens.
func (r *run) work(j *running) error {
	for range 16 {
		var err error
		switch n := r.random.IntN(20); {
		case n < 11:
			err = r.group(j, r.random.IntN(4), n < 3)
		case n < 13:
			r.lazy(j, 1+r.random.IntN(3))
			time.Sleep(50 * time.Millisecond)
		case n < 15:
			err = j.Roll(context.Background())
		case n < 18:
			err = r.remove(j)
		default:
			err = r.look(j)
		}
		select {
		case <-j.Failed():
			if !r.happened {
				return fmt.Errorf("failed by itself: %w", j.Err())
			}
			return nil
		default:
		}
		if err != nil {
			// Removing may fail without harm.
			if r.happened && errors.Is(err, errorfs.ErrInjected) {
				continue
			}
			return err
		}
	}
	return nil
}

// group hands over lazy batches and one that is not, so that all go in one round.
func (r *run) group(j *running, lazy int, written bool) error {
	r.lazy(j, lazy)
	b, records := r.batch()
	var err error
	if written {
		err = j.AppendWritten(context.Background(), b)
	} else {
		err = j.Append(context.Background(), b)
	}
	r.verdict(b, records, err, written)
	if err != nil && !errors.Is(err, journal.ErrFailed) {
		return broken("append: %w", err)
	}
	return err
}

func (r *run) lazy(j *running, n int) {
	for range n {
		b, records := r.batch()
		b.Lazy = true
		b.Done = func(b *journal.Batch, err error) { r.verdict(b, records, err, false) }
		j.Submit(b)
	}
}

func (r *run) verdict(b *journal.Batch, records []*sent, err error, written bool) {
	for _, rec := range b.Records {
		if rec.Body != nil {
			rec.Body.Release()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trace("batch %d: lazy %v, written %v, verdict %v", records[0].batch, b.Lazy, written, err)
	if err != nil {
		return
	}
	if r.sickFiles {
		r.liars++
	}
	for i, s := range records {
		s.position = b.Records[i].Position
		s.written = s.written || !r.frozen
		s.must = s.must || !r.frozen && !written
	}
}

// batch makes up a batch and notes that it is sent.
func (r *run) batch() (*journal.Batch, []*sent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches++
	b := &journal.Batch{}
	count := 1 + r.random.IntN(3)
	var records []*sent
	for i := range count {
		s := &sent{batch: r.batches, index: i, count: count}
		s.kind = journal.Kind(r.random.IntN(256))
		s.meta = binary.AppendUvarint(nil, uint64(s.batch))
		s.meta = append(s.meta, byte(i))
		s.meta = append(s.meta, r.bytes(r.random.IntN(100))...)
		if s.hasBody = r.random.IntN(3) > 0; s.hasBody {
			s.body = r.bytes(r.random.IntN([]int{1, 300, 3000, 6000}[r.random.IntN(4)]))
		}
		records = append(records, s)
		r.sent = append(r.sent, s)
		b.Records = append(b.Records, s.record())
	}
	return b, records
}

func (r *run) bytes(n int) []byte {
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, r.random.Uint64())
	}
	return p[:n]
}

// remove removes a sealed extent and what was sent to it.
func (r *run) remove(j *running) error {
	var sealed []journal.Extent
	for _, e := range j.Extents() {
		if e.Sealed {
			sealed = append(sealed, e)
		}
	}
	if len(sealed) == 0 {
		return nil
	}
	id := sealed[r.random.IntN(len(sealed))].ID
	r.mu.Lock()
	r.gone[id] = false
	r.mu.Unlock()
	err := j.Remove(context.Background(), id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && !r.frozen {
		r.gone[id] = true
	}
	return err
}

// look reads a random record.
func (r *run) look(j *running) error {
	r.mu.Lock()
	var known []*sent
	for _, s := range r.sent {
		if _, removing := r.gone[j.ExtentOf(s.position)]; s.must && s.position != 0 && !removing {
			known = append(known, s)
		}
	}
	r.mu.Unlock()
	if len(known) == 0 {
		return nil
	}
	s := known[r.random.IntN(len(known))]
	err := same(context.Background(), j, s.position, s.item)
	if err != nil && !errors.Is(err, errorfs.ErrInjected) {
		return broken("reading batch %d record %d: %w", s.batch, s.index, err)
	}
	return err
}

// check compares what is there with what was sent: every record that must be there, in order, byte for byte; of the
// others whole batches, and none behind a hole. What is found is there to stay.
func (r *run) check(j journal.Journal) error {
	ctx := context.Background()
	got, err := entries(ctx, j, 0)
	if err != nil {
		return err
	}
	if d := j.Damage(); len(d) > 0 {
		return broken("damage reported: %+v", d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*sent
	perBatch := make(map[int]int)
	hole := 0
	i := 0
	for n, e := range got {
		if n > 0 && e.Position < got[n-1].Next || e.Next <= e.Position || e.Next > j.End() {
			return broken("entry at %#x is out of order", uint64(e.Position))
		}
		number, size := binary.Uvarint(e.Meta)
		if size <= 0 || size >= len(e.Meta) {
			return broken("entry at %#x was never sent: meta %q", uint64(e.Position), e.Meta)
		}
		for i < len(r.sent) && (r.sent[i].batch != int(number) || r.sent[i].index != int(e.Meta[size])) {
			if err := r.missing(j, r.sent[i]); err != nil {
				return err
			}
			if !r.removing(j, r.sent[i]) {
				hole = r.sent[i].batch
			}
			i++
		}
		if i == len(r.sent) {
			return broken("entry at %#x, of batch %d, was never sent, or came back", uint64(e.Position), number)
		}
		s := r.sent[i]
		i++
		if hole > 0 {
			return broken("batch %d is there, but not batch %d before it", s.batch, hole)
		}
		if s.position != 0 && s.position != e.Position {
			return broken("batch %d record %d moved from %#x to %#x", s.batch, s.index, uint64(s.position),
				uint64(e.Position))
		}
		if removed := r.gone[j.ExtentOf(e.Position)]; removed {
			return broken("batch %d record %d came back after its removal", s.batch, s.index)
		}
		if e.Kind != s.kind || !bytes.Equal(e.Meta, s.meta) || e.HasBody != s.hasBody ||
			e.BodySize != int64(len(s.body)) {
			return broken("entry of batch %d record %d differs", s.batch, s.index)
		}
		if err := same(ctx, j, e.Position, s.item); err != nil {
			if errors.Is(err, errorfs.ErrInjected) {
				return err
			}
			return broken("batch %d record %d: %w", s.batch, s.index, err)
		}
		s.position, s.must = e.Position, true
		perBatch[s.batch]++
		found = append(found, s)
	}
	for _, s := range r.sent[i:] {
		if err := r.missing(j, s); err != nil {
			return err
		}
	}
	for _, s := range found {
		if perBatch[s.batch] != s.count {
			return broken("of batch %d with %d records there are %d", s.batch, s.count, perBatch[s.batch])
		}
	}
	r.sent = found
	clear(r.gone)
	return nil
}

func (r *run) missing(j journal.Journal, s *sent) error {
	if (s.must || r.killed && s.written) && !r.removing(j, s) {
		return broken("batch %d record %d was acknowledged and is lost", s.batch, s.index)
	}
	return nil
}

// removing says that the extent of s was removed or about to be.
func (r *run) removing(j journal.Journal, s *sent) bool {
	if s.position == 0 {
		return false
	}
	_, ok := r.gone[j.ExtentOf(s.position)]
	return ok
}
