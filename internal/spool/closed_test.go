package spool

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/smtp"
)

// A closed spool answers with ErrClosed, or nothing.
func TestClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	m := r.accept(r.message("a.example", "b.example"))
	r.settle(r.taken(m)[:1], deferred(time.Now()))
	r.settle(r.taken(m)[1:], bounced())
	r.checkpoint()
	s, ctx := r.spool, context.Background()
	r.close()
	body := smtp.BodyOf([]byte("x\r\n"))
	defer body.Release()
	calls := map[string]func() error{
		"Accept": func() error { return s.Accept(ctx, r.message("a.example"), body) },
		"Claim": func() error {
			_, err := s.Claim(ctx, QueueKey{"t", "a.example"}, time.Now(), 1, nil)
			return err
		},
		"Body":       func() error { _, err := s.Body(ctx, m); return err },
		"Message":    func() error { _, _, err := s.Message(ctx, m.ID); return err },
		"Hold":       func() error { _, err := s.Hold(ctx, Filter{}, "x"); return err },
		"Checkpoint": s.Checkpoint,
		"Unreported": func() error { _, err := s.Unreported(time.Now(), 1); return err },
		"AcceptReport": func() error {
			return s.AcceptReport(ctx, nil, nil, m, []int{1})
		},
		"Entries": func() error {
			for _, err := range s.Entries(ctx, Filter{}, 0, EntryID{}) {
				return err
			}
			return nil
		},
		"Settle": func() error {
			done := make(chan error, 1)
			e := &Entry{Message: m}
			s.Settle(&Attempt{Message: m, Entries: []*Entry{e}, Results: []Result{delivered()}}, func(err error) { done <- err })
			return <-done
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.Aging(time.Now().Add(1000*time.Hour), 10); got != nil {
		t.Errorf("Aging: %v", got)
	}
	s.Return([]*Entry{{Message: m}})
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}
