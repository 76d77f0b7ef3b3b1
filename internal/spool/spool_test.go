package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/smtp"
)

func TestAcceptAndDeliver(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	m := r.accept(r.message("a.example", "b.example"))
	es := r.taken(m)
	if len(es) != 2 || es[0].State != Claimed {
		t.Fatalf("fresh: %v", es)
	}
	body, err := r.spool.Body(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(body.Reader())
	body.Release()
	if !bytes.Equal(got, bodyFor(m)) {
		t.Errorf("body %q", got)
	}
	r.sums()
	r.settle(es, delivered())
	if st := r.sums(); st.Delivered != 2 || st.Queued() != 0 || st.OverlayMessages != 0 || st.BodyBytes != 0 {
		t.Errorf("%+v", st)
	}
	r.checkpoint()
	r.reopen()
	if st := r.sums(); st.Delivered != 2 || st.Accepted != 2 || st.Queued() != 0 {
		t.Errorf("after a restart: %+v", st)
	}
}

func TestDeferAndClaim(t *testing.T) {
	t.Parallel()
	for _, checkpoint := range []bool{false, true} {
		r := newRig(t, vfs.NewMem(), nil)
		m := r.accept(r.message("a.example"))
		due := time.Now().Add(time.Hour)
		r.settle(r.taken(m), deferred(due))
		if checkpoint {
			r.checkpoint()
			if n := r.spool.Stats().OverlayMessages; n != 0 {
				t.Errorf("%d messages in memory", n)
			}
		}
		r.sums()
		if es := r.claim("a.example", time.Now(), 10); len(es) != 0 {
			t.Fatalf("claimed before its time: %v", es[0])
		}
		r.sums()
		es := r.claim("a.example", due.Add(time.Second), 10)
		if len(es) != 1 || es[0].Attempts != 1 || es[0].Last.Reply.Text != "later" {
			t.Fatalf("claimed %v", es)
		}
		r.sums()
		r.reopen()
		e := r.one(Filter{})
		if wait := time.Until(e.Due); e.State != Waiting || e.Interrupted != 1 || wait > 2*time.Second {
			t.Errorf("after a crash: %+v", e)
		}
		es = r.claim("a.example", e.Due, 10)
		r.settle(es, bounced())
		if st := r.sums(); st.Bounced != 1 || st.Unreported != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// A claim brings all due entries of a message, which are in memory from then on; a probe brings one.
func TestClaimOfManyRecipients(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	due := time.Now().Add(time.Hour)
	many := slices.Repeat([]string{"a.example"}, 40)
	first, second := r.accept(r.message(many...)), r.accept(r.message(append(many, "b.example")...))
	r.settle(r.taken(first), deferred(due))
	r.settle(r.taken(second), deferred(due.Add(time.Minute)))
	r.checkpoint()
	now := due.Add(time.Hour)
	for _, step := range []struct{ limit, want int }{{1, 1}, {2, 39}, {16, 40}, {16, 0}} {
		es := r.claim("a.example", now, step.limit)
		if len(es) != step.want {
			t.Errorf("a claim of %d gave %d entries, want %d", step.limit, len(es), step.want)
		}
		for _, e := range es {
			if e.Message.ID != es[0].Message.ID || e.Queue().Domain != "a.example" {
				t.Errorf("%s among entries of %s", e.ID(), es[0].Message.ID)
			}
		}
	}
	r.sums()
}

// Entries of one message count by Share while memory is bounded; Accept waits for room beyond it.
func TestAcceptWaitsByWeight(t *testing.T) {
	t.Parallel()
	const most = 20 // messages of one entry
	r := newRig(t, vfs.NewMem(), func(r *rig) { r.opts.OverlayEntries = most / overlayHard })
	for range most / 2 {
		r.accept(r.message(slices.Repeat([]string{"a.example"}, 2*Share)...))
	}
	if st := r.sums(); st.OverlayEntries != most*Share {
		t.Errorf("%d entries in memory, want %d", st.OverlayEntries, most*Share)
	}
	body := smtp.BodyOf([]byte("x\r\n"))
	defer body.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.spool.Accept(ctx, r.message("b.example"), body); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beyond the bound: %v", err)
	}
}
