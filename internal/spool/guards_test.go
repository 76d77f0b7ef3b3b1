package spool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// switchFS injects errors while it is on.
type switchFS struct {
	vfs.FS
	fail atomic.Pointer[func(op errorfs.Op) error]
}

func newSwitchFS(below vfs.FS) *switchFS {
	s := new(switchFS)
	s.FS = errorfs.Wrap(below, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f := s.fail.Load(); f != nil {
			return (*f)(op)
		}
		return nil
	}))
	return s
}

func (s *switchFS) set(f func(op errorfs.Op) error) {
	if f == nil {
		s.fail.Store(nil)
		return
	}
	s.fail.Store(&f)
}

// TestR2RemovalFails: mail is delivered and the file system refuses to remove what held it. Nothing is delivered
// again, in this process or the next, and the space comes back when the file system does.
func TestR2RemovalFails(t *testing.T) {
	t.Parallel()
	fs := newSwitchFS(vfs.NewMem())
	r := newRig(t, fs, func(r *rig) { r.segment = 16 << 10 })
	fs.set(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpRename && strings.Contains(op.Path, "-")) &&
			strings.HasPrefix(op.Path, "/journal/") && strings.HasSuffix(op.Path, ".seg") {
			return syscall.EIO
		}
		return nil
	})
	for i := range 100 {
		m := r.accept(r.message(fmt.Sprintf("d%d.example", i%5)))
		r.settle(r.taken(m), delivered())
	}
	reclaim := func() {
		t.Helper()
		r.checkpoint()
		if err := r.spool.reclaim(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	undone := func() {
		t.Helper()
		st := r.sums()
		if st.Delivered != 100 || st.Queued() != 0 || r.spool.Err() != nil {
			t.Errorf("%+v, %v", st, r.spool.Err())
		}
		for i := range 5 {
			key := QueueKey{Tenant: "t", Domain: fmt.Sprintf("d%d.example", i)}
			es, err := r.spool.Claim(context.Background(), key, time.Now().Add(time.Hour), 10, nil)
			if len(es) != 0 || err != nil {
				t.Errorf("delivered again: %d entries, %v", len(es), err)
			}
		}
	}
	reclaim()
	before := r.spool.Stats().Extents
	if before < 3 {
		t.Fatalf("%d extents", before)
	}
	undone()
	r.reopen()
	undone()
	reclaim()
	undone()
	if n := r.spool.Stats().Extents; n < before-1 {
		t.Errorf("%d extents, there were %d that cannot be removed", n, before)
	}
	fs.set(nil)
	r.reopen()
	reclaim()
	undone()
	if n := r.spool.Stats().Extents; n > 2 {
		t.Errorf("%d extents are left", n)
	}
}

// TestR2RemovalNotDurable: when it is not known whether a removed segment would be back after a power cut, the spool
// stops instead of going on with younger ones.
func TestR2RemovalNotDurable(t *testing.T) {
	t.Parallel()
	fs := newSwitchFS(vfs.NewMem())
	r := newRig(t, fs, func(r *rig) { r.segment = 16 << 10 })
	for i := range 100 {
		m := r.accept(r.message(fmt.Sprintf("d%d.example", i%5)))
		r.settle(r.taken(m), delivered())
	}
	r.checkpoint()
	var removed atomic.Bool
	fs.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRemove && strings.HasPrefix(op.Path, "/journal/") {
			removed.Store(true)
		}
		if removed.Load() && op.Path == "/journal" && op.Kind == errorfs.OpFileSync {
			return syscall.EIO
		}
		return nil
	})
	err := r.spool.reclaim(context.Background())
	if !removed.Load() || !errors.Is(err, ErrFailed) || !errors.Is(r.spool.Err(), ErrFailed) {
		t.Errorf("removed %v; %v; %v", removed.Load(), err, r.spool.Err())
	}
	fs.set(nil)
}

// TestR2SettleFails: when outcomes cannot be recorded nothing more is given out, and what was in flight stays so until
// a restart finds it interrupted: it rests, and is due once.
func TestR2SettleFails(t *testing.T) {
	t.Parallel()
	fs := newSwitchFS(vfs.NewMem())
	r := newRig(t, fs, nil)
	m := r.accept(r.message("a.example"))
	waiting := r.accept(r.message("a.example"))
	r.settle(r.taken(waiting), deferred(time.Now().Add(-time.Second)))
	fs.set(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, "/journal/") && op.Kind == errorfs.OpFileWrite {
			return syscall.EIO
		}
		return nil
	})
	told := make(chan error, 1)
	r.spool.Settle(&Attempt{
		Message: m, Entries: r.taken(m), Results: []Result{delivered()}, Started: time.Now(), Ended: time.Now(),
	}, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrFailed) {
		t.Errorf("settled with %v", err)
	}
	key := QueueKey{Tenant: "t", Domain: "a.example"}
	es, err := r.spool.Claim(context.Background(), key, time.Now().Add(time.Hour), 10, nil)
	if len(es) != 0 || !errors.Is(err, ErrFailed) {
		t.Errorf("claimed %d entries, %v, of a spool that cannot settle", len(es), err)
	}
	fs.set(nil)
	r.stop()
	if err := <-r.ran; !errors.Is(err, journal.ErrFailed) {
		t.Errorf("the journal ended with %v", err)
	}
	if err := errors.Join(r.journal.Close(), r.spool.Close()); err != nil {
		t.Error(err)
	}
	r.open()
	es, err = r.spool.Claim(context.Background(), key, time.Now(), 10, nil)
	if err != nil || len(es) != 1 || es[0].Message.ID != waiting.ID {
		t.Errorf("%d entries are due at once, %v; want that which was not in flight", len(es), err)
	}
	r.spool.Return(es)
	e := r.one(Filter{Messages: []message.ID{m.ID}})
	if e.Interrupted != 1 || !e.Due.After(time.Now()) {
		t.Errorf("%+v", e)
	}
}

// TestR1R4StoreErrors fails each write and sync of the journal in turn under an acceptance: it is refused, nothing of
// it is handed over or found waiting by this process, and what was acknowledged before is all there after a restart.
func TestR1R4StoreErrors(t *testing.T) {
	t.Parallel()
	for n := range 12 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			fs := newSwitchFS(vfs.NewMem())
			r := newRig(t, fs, func(r *rig) { r.segment = 16 << 10 })
			var accepted []*Message
			for range 3 {
				m := r.accept(r.message("a.example"))
				r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
				accepted = append(accepted, m)
			}
			var count atomic.Int64
			fs.set(func(op errorfs.Op) error {
				if !strings.HasPrefix(op.Path, "/journal") || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if count.Add(1) == int64(n+1) { // once: a journal that tried again would succeed
					return syscall.EIO
				}
				return nil
			})
			refused := map[message.ID]bool{}
			for range 20 { // enough for a new segment
				m := r.message("b.example")
				body := smtp.BodyOf([]byte("Subject: x\r\n\r\n" + strings.Repeat("x\r\n", 700)))
				m.Size = body.Size()
				err := r.spool.Accept(context.Background(), m, body)
				body.Release()
				if err == nil {
					accepted = append(accepted, m)
					r.spool.Return(r.taken(m))
					continue
				}
				if !errors.Is(err, ErrFailed) && !errors.Is(err, journal.ErrFailed) {
					t.Errorf("refused with %v", err)
				}
				refused[m.ID] = true
				if len(r.taken(m)) != 0 {
					t.Error("a message that was refused is delivered")
				}
			}
			if count.Load() <= int64(n) {
				t.Fatal("fewer operations than this")
			}
			if len(refused) == 0 {
				return // it may fail, such as allocating ahead
			}
			es, err := r.spool.Claim(context.Background(), QueueKey{Tenant: "t", Domain: "b.example"},
				time.Now().Add(2*time.Hour), 100, nil)
			if len(es) > 0 || err == nil {
				t.Errorf("%d entries are given out by a spool that has failed", len(es))
			}
			fs.set(nil)
			r.stop()
			<-r.ran
			r.journal.Close()
			r.spool.Close()
			r.open()
			for _, m := range accepted {
				if _, _, err := r.spool.Message(context.Background(), m.ID); err != nil {
					t.Errorf("accepted message %s: %v", m.ID, err)
				}
			}
		})
	}
}
