package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/api"
)

func TestWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { v := now.Add(d); return &v }
	for _, c := range []struct{ got, want string }{
		{count(0, "entry", "entries"), "0 entries"},
		{count(1, "entry", "entries"), "1 entry"},
		{count(uint64(2), "entry", "entries"), "2 entries"},
		{short(-time.Second), "0s"},
		{short(59*time.Second + 999*time.Millisecond), "59s"},
		{short(61 * time.Second), "1m1s"},
		{short(2*time.Hour + 5*time.Minute), "2h5m"},
		{short(76 * time.Hour), "3d4h"},
		{age(nil, now), "-"},
		{age(at(-time.Minute), now), "1m0s"},
		{until(nil, now), "-"},
		{until(at(-time.Minute), now), "now"},
		{until(at(999*time.Millisecond), now), "now"},
		{until(at(time.Second), now), "in 1s"},
		{size(1), "1 byte"},
		{size(10239), "10239 bytes"},
		{size(10240), "10 KiB"},
		{size(10 << 20), "10 MiB"},
		{times(1), "once"},
		{times(2), "twice"},
		{times(3), "3 times"},
		{sender(""), "<> (a report)"},
		{sender("<>"), "<> (a report)"},
		{sender("a@b.example"), "a@b.example"},
		{strings.Join(wrap("one two  three", 7), "|"), "one two|three"},
		{strings.Join(wrap("grüßen ist gut", 10), "|"), "grüßen ist|gut"},
		{strings.Join(wrap("muchlongerthanthat x", 4), "|"), "muchlongerthanthat|x"},
		{strings.Join(wrap("", 4), "|"), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestPrintQueues(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	old := now.Add(-3 * time.Hour)
	long := "destination suspended until 12:07:33: connection refused by mx.down.example [127.0.1.6]:25 " +
		"(6 tries, first at 11:07:16)"
	list := api.QueueList{Total: 3, Entries: 120034, Queues: []api.Queue{
		{Tenant: "default", Domain: "down.example", Waiting: 120000, Held: 1, Oldest: &old, Why: api.Why{Text: long}},
		{Tenant: "default", Domain: "a-domain-that-is-longer-than-a-column.example", Waiting: 33,
			Why: api.Why{Text: "short"}},
	}}
	var b bytes.Buffer
	printQueues(&b, list, now, 100)
	want := `DOMAIN                                WAITING  IN FLIGHT  HELD  OLDEST  WHY
down.example                           120000          0     1    3h0m  destination suspended until
                                                                        12:07:33: connection refused
                                                                        by mx.down.example
                                                                        [127.0.1.6]:25 (6 tries, first
                                                                        at 11:07:16)
a-domain-that-is-longer-than-a-column.example       33          0     0       -  short

120034 entries in 3 queues, 2 of them listed; --limit N lists more.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	list.Queues[1].Domain, list.Queues[1].Tenant = "x.example", "shop"
	b.Reset()
	printQueues(&b, list, now, 0)
	if got := b.String(); !strings.Contains(got, long+"\n") || !strings.Contains(got, "\nshop/x.example ") ||
		!strings.HasPrefix(got, "TENANT/DOMAIN ") {
		t.Errorf("got\n%s", got)
	}
}

func TestPrintTimeline(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	line := func(after time.Duration, what, who, text string) api.TimelineEvent {
		return api.TimelineEvent{Time: begun.Add(after), Type: what, Recipient: who, Text: text}
	}
	var b bytes.Buffer
	printTimeline(&b, []api.TimelineEvent{
		line(0, "accepted", "", "from a@b.example"),
		line(time.Second, "attempted", "", "attempt 1"), // one outcome tells it
		line(time.Second, "deferred", "c@d.example", "answered 450"),
		line(2*time.Second, "attempted", "", "attempt 2"), // two outcomes of it
		line(2*time.Second, "delivered", "c@d.example", "answered 250"),
		line(2*time.Second, "bounced", "e@d.example", "answered 550"),
		line(3*time.Second, "attempted", "", "attempt 3"), // no outcome yet
	})
	want := `  12:00:00.000    +0.000s  accepted
                           from a@b.example
  12:00:01.000    +1.000s  deferred    c@d.example
                           answered 450
  12:00:02.000    +2.000s  attempted
                           attempt 2
  12:00:02.000    +2.000s  delivered   c@d.example
                           answered 250
  12:00:02.000    +2.000s  bounced     e@d.example
                           answered 550
  12:00:03.000    +3.000s  attempted
                           attempt 3
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
