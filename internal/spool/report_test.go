package spool

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp"
)

func TestWhoIsReported(t *testing.T) {
	t.Parallel()
	expired := Result{Outcome: Expired, Reason: event.Aged}
	cancelled := Result{Outcome: Cancelled, Reason: event.Operator}
	remoteTells := delivered()
	remoteTells.RemoteDSN = true
	tests := []struct {
		name   string
		notify smtp.Notify
		null   bool
		result Result
		want   bool
	}{
		{"a bounce", 0, false, bounced(), true},
		{"a bounce, asked for", smtp.NotifyFailure, false, bounced(), true},
		{"a bounce, only delays asked for", smtp.NotifyDelay, false, bounced(), false},
		{"a bounce, never", smtp.NotifyNever, false, bounced(), false},
		{"a bounce of a bounce", 0, true, bounced(), false},
		{"too old", 0, false, expired, true},
		{"too old, never", smtp.NotifyNever, false, expired, false},
		{"cancelled", 0, false, cancelled, false},
		{"delivered", 0, false, delivered(), false},
		{"delivered, asked for", smtp.NotifySuccess, false, delivered(), true},
		{"delivered, the remote tells", smtp.NotifySuccess, false, remoteTells, false},
	}
	r := newRig(t, vfs.NewMem(), nil)
	for _, tt := range tests {
		m := r.message("a.example")
		m.Recipients[0].Notify = tt.notify
		if tt.null {
			m.From.Path = smtp.Path{}
		}
		r.accept(m)
		r.settle(r.taken(m), tt.result)
		reports, err := r.spool.Unreported(time.Now(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(reports) == 1; got != tt.want {
			t.Errorf("%s: %d reports, want %v", tt.name, len(reports), tt.want)
		}
		for _, rep := range reports {
			if rep.Message.ID != m.ID || len(rep.Entries) != 1 || rep.Entries[0].Last.Outcome != tt.result.Outcome {
				t.Errorf("%s: %+v", tt.name, rep)
			}
			if err := r.spool.AcceptReport(context.Background(), nil, nil, m, []int{0}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if st := r.sums(); st.Unreported != 0 || st.OverlayMessages != 0 {
			t.Errorf("%s: %+v", tt.name, st)
		}
	}
}

// Failures of one message share a report, unless one of its entries stays in flight for too long.
func TestReportsAreShared(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	m := r.accept(r.message("a.example", "b.example", "c.example"))
	es := r.taken(m)
	r.settle(es[:1], bounced())
	now := time.Now()
	if got, _ := r.spool.Unreported(now, 10); len(got) != 0 {
		t.Errorf("reported while others are in flight: %+v", got)
	}
	r.settle(es[1:2], bounced())
	got, err := r.spool.Unreported(now.Add(reportRest+time.Second), 10)
	if err != nil || len(got) != 1 || len(got[0].Entries) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	r.settle(es[2:], deferred(now.Add(time.Hour)))
	r.checkpoint()
	if got, err = r.spool.Unreported(now, 10); err != nil || len(got) != 1 || len(got[0].Entries) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	r.reopen()
	if got, err = r.spool.Unreported(now, 10); err != nil || len(got) != 1 || len(got[0].Entries) != 2 {
		t.Fatalf("after a restart: %+v %v", got, err)
	}

	dsn := r.message("sender.example")
	dsn.From, dsn.Report = smtp.Sender{}, true
	body := smtp.BodyOf(bodyFor(dsn))
	defer body.Release()
	for _, stale := range [][]int{{2}, {0, 2}, {0, 0}, {7}, nil} {
		if err := r.spool.AcceptReport(context.Background(), dsn, body, got[0].Message, stale); !errors.Is(err, ErrStale) {
			t.Errorf("a report of %v: %v", stale, err)
		}
	}
	if err := r.spool.AcceptReport(context.Background(), dsn, body, got[0].Message, []int{0, 1}); err != nil {
		t.Fatal(err)
	}
	if es := r.taken(dsn); len(es) != 1 || es[0].State != Claimed {
		t.Errorf("the report was not handed over: %v", es)
	}
	err = r.spool.AcceptReport(context.Background(), nil, nil, got[0].Message, []int{0, 1})
	if !errors.Is(err, ErrStale) {
		t.Errorf("a second report: %v", err)
	}
	r.reopen()
	if got, err = r.spool.Unreported(now, 10); err != nil || len(got) != 0 {
		t.Errorf("reported twice: %+v %v", got, err)
	}
	if st := r.sums(); st.Accepted != 4 || st.Bounced != 2 || st.Waiting != 2 {
		t.Errorf("%+v", st)
	}
}

func TestAgingAndDelayNotice(t *testing.T) {
	t.Parallel()
	r := newRig(t, vfs.NewMem(), nil)
	now := time.Now()
	m := r.message("a.example", "b.example", "c.example", "d.example")
	m.DelayNotice, m.Expires = now.Add(4*time.Hour), now.Add(72*time.Hour)
	m.Recipients[1].Notify = smtp.NotifyFailure // wants no delay notice
	r.accept(m)
	es := r.taken(m)
	r.settle(es[:3], deferred(now.Add(100*time.Hour)))
	if n, err := r.spool.Hold(context.Background(), Filter{Domain: "c.example"}, "held"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	aging := func(at time.Duration) map[int]bool {
		t.Helper()
		r.checkpoint()
		got := make(map[int]bool)
		for _, e := range r.spool.Aging(now.Add(at), 10) {
			got[e.Index] = true
		}
		return got
	}
	for _, again := range []bool{false, true} { // in memory as claimed entry's sibling, and from a new start
		if got := aging(3 * time.Hour); len(got) != 0 {
			t.Errorf("after 3 h: %v", got)
		}
		if got := aging(5 * time.Hour); !got[0] || got[1] || got[2] || got[3] && !again {
			t.Errorf("after 5 h: %v", got)
		}
		if got := aging(73 * time.Hour); !got[0] || !got[1] || got[2] {
			t.Errorf("after 73 h: %v", got)
		}
		if !again {
			r.reopen()
		}
	}
	if err := r.spool.AcceptDelayNotice(context.Background(), nil, nil, m, []int{0}); err != nil {
		t.Fatal(err)
	}
	if err := r.spool.AcceptDelayNotice(context.Background(), nil, nil, m, []int{0}); !errors.Is(err, ErrStale) {
		t.Errorf("a second notice: %v", err)
	}
	if got := aging(5 * time.Hour); got[0] {
		t.Errorf("the notice is asked for again: %v", got)
	}
	r.reopen()
	if got := aging(5 * time.Hour); got[0] {
		t.Errorf("the notice is asked for again after a restart: %v", got)
	}
	f := Filter{Entries: []EntryID{{m.ID, 0}, {m.ID, 1}, {m.ID, 2}}}
	tooOld := Result{Outcome: Expired, Reason: event.Aged}
	if n, err := r.spool.Finish(context.Background(), f, tooOld); n != 2 || err != nil {
		t.Errorf("%d expired, %v; what is held does not expire", n, err)
	}
	if got := aging(73 * time.Hour); got[0] || got[1] {
		t.Errorf("expired entries age: %v", got)
	}
	if n, err := r.spool.Release(context.Background(), Filter{Domain: "c.example"}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got := aging(73 * time.Hour); !got[2] {
		t.Errorf("a released entry does not age: %v", got)
	}
	reports, err := r.spool.Unreported(now.Add(time.Hour), 10)
	if err != nil || len(reports) != 1 || len(reports[0].Entries) != 2 ||
		reports[0].Entries[0].Last.Reply.Text != "later" {
		t.Errorf("the report lacks the last words of the remote: %+v %v", reports, err)
	}
	r.sums()
}
