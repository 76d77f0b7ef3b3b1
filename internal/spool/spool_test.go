package spool

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
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
