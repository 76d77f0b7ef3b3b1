// Package journaltest holds what every engine behind [journal.Journal] must pass: how it behaves ([Run]), what a power
// cut, a kill or a failing disk may leave ([Campaign]), each case repeatable by its seed.
//
//	func TestLog(t *testing.T) {
//		open := func(o journal.Options) (journal.Journal, error) { return journal.Open(o) }
//		journaltest.Run(t, open)
//		journaltest.Campaign(t, open, 10_000)
//	}
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// Open opens an engine. An engine that keeps its data elsewhere than in files takes o.FS and o.Dir as its identity.
type Open func(o journal.Options) (journal.Journal, error)

const dir = "journal"

// running is an open journal with its committer.
type running struct {
	journal.Journal
	cancel context.CancelFunc
	ended  chan error
}

func start(j journal.Journal) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Journal: j, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- j.Run(ctx) }()
	return r
}

// stop ends the committer and closes. A failed journal's error is not one of stop.
func (r *running) stop() error {
	r.cancel()
	err := <-r.ended
	if errors.Is(err, journal.ErrFailed) {
		err = nil
	}
	return errors.Join(err, r.Close())
}

// begin opens and runs a journal until the end of the test.
func begin(t *testing.T, open Open, o journal.Options) *running {
	t.Helper()
	r := start(mustOpen(t, open, o))
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return r
}

func mustOpen(t *testing.T, open Open, o journal.Options) journal.Journal {
	t.Helper()
	if o.Dir == "" {
		o.Dir = dir
	}
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	j, err := open(o)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return j
}

// item is a record as a test knows it.
type item struct {
	kind    journal.Kind
	meta    []byte
	body    []byte
	hasBody bool
}

func (i item) record() journal.Record {
	r := journal.Record{Kind: i.kind, Meta: i.meta}
	if i.hasBody {
		r.Body = smtp.BodyOf(i.body)
	}
	return r
}

// batchOf makes a batch, whose bodies the engine alone holds after release.
func batchOf(items ...item) (b *journal.Batch, release func()) {
	b = new(journal.Batch)
	for _, i := range items {
		b.Records = append(b.Records, i.record())
	}
	return b, func() {
		for _, r := range b.Records {
			if r.Body != nil {
				r.Body.Release()
			}
		}
	}
}

// add appends one batch and returns the positions of its records.
func add(t *testing.T, j journal.Journal, items ...item) []journal.Position {
	t.Helper()
	b, release := batchOf(items...)
	defer release()
	if err := j.Append(t.Context(), b); err != nil {
		t.Fatalf("append: %v", err)
	}
	var p []journal.Position
	for _, r := range b.Records {
		p = append(p, r.Position)
	}
	return p
}

// same compares what Read gave for p with what was written.
func same(ctx context.Context, j journal.Journal, p journal.Position, want item) error {
	r, err := j.Read(ctx, p)
	if err != nil {
		return err
	}
	if r.Kind != want.kind || r.Position != p || !bytes.Equal(r.Meta, want.meta) {
		return fmt.Errorf("record at %#x has kind %d, position %#x, meta %.40q, want kind %d, meta %.40q",
			uint64(p), r.Kind, uint64(r.Position), r.Meta, want.kind, want.meta)
	}
	if (r.Body != nil) != want.hasBody {
		return fmt.Errorf("record at %#x has a body: %v, want %v", uint64(p), r.Body != nil, want.hasBody)
	}
	if r.Body == nil {
		return nil
	}
	defer r.Body.Release()
	got, err := io.ReadAll(r.Body.Reader())
	if err != nil || !bytes.Equal(got, want.body) || r.Body.Size() != int64(len(want.body)) {
		return fmt.Errorf("body at %#x differs: %d octets of %d, error %v", uint64(p), len(got), len(want.body), err)
	}
	whole := smtp.BodyOf(want.body)
	defer whole.Release()
	if r.Body.EightBit != whole.EightBit || r.Body.DotLine != whole.DotLine {
		return fmt.Errorf("body at %#x has flags %v %v, want %v %v", uint64(p), r.Body.EightBit, r.Body.DotLine,
			whole.EightBit, whole.DotLine)
	}
	return nil
}

// entries reads all durable entries from a position on. Metas are copied.
func entries(ctx context.Context, j journal.Journal, from journal.Position) (all []journal.Entry, err error) {
	r, err := j.NewReader(from)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		e, err := r.Next(ctx, false)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		e.Meta = bytes.Clone(e.Meta)
		all = append(all, e)
	}
}

func mustEntries(t *testing.T, j journal.Journal, from journal.Position) []journal.Entry {
	t.Helper()
	all, err := entries(t.Context(), j, from)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	return all
}
