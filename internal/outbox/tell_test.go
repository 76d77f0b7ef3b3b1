package outbox

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
)

var update = flag.Bool("update", false, "rewrite the expected events in testdata")

// records has one record of each kind and the variants that tell something else.
func records() []spool.Record {
	one, two := testMessage(1, 1), testMessage(2, 2)
	report := testMessage(3, 1)
	report.Report, report.From = true, smtp.Sender{}
	at := two.Received.Add(time.Minute)
	change := func(i int) spool.Change {
		return spool.Change{Message: two, Index: i, Recipient: two.Recipients[i].Path, Queue: two.Queues[i]}
	}
	with := func(c spool.Change, set func(*spool.Change)) spool.Change {
		set(&c)
		return c
	}
	mixed := attempted(two, time.Second, delivered)
	mixed.Changes[1].Result, mixed.Changes[1].State = deferred, spool.Held
	untried := attempted(two, time.Second, spool.Result{})
	decided := attempted(two, time.Second, deferred)
	decided.Try = spool.Try{}
	decided.Changes[0].Result = spool.Result{Outcome: spool.Deferred, Reason: event.Suspended, Explanation: "The destination is suspended."}
	decided.Changes[1].Result = spool.Result{Outcome: spool.Expired, Reason: event.Aged}
	return []spool.Record{
		accepted(one), accepted(two), accepted(report),
		attempted(one, time.Second, delivered), attempted(two, time.Second, deferred), mixed, untried, decided,
		{Kind: spool.KindClaimed, Time: at, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindSettled, Time: at, Changes: []spool.Change{
			with(change(0), func(c *spool.Change) {
				c.Result, c.Attempts = spool.Result{Outcome: spool.Bounced, Reason: event.Operator}, 3
			}),
			with(change(1), func(c *spool.Change) { c.Result = spool.Result{Outcome: spool.Cancelled, Reason: event.Operator} }),
			with(change(1), func(c *spool.Change) {
				c.Result = spool.Result{Outcome: spool.Suppressed, Reason: event.SuppressionListed}
			}),
		}},
		{Kind: spool.KindHeld, Time: at, Changes: []spool.Change{with(change(0), func(c *spool.Change) { c.HoldReason = "looks odd" })}},
		{Kind: spool.KindReleased, Time: at, Changes: []spool.Change{with(change(0), func(c *spool.Change) { c.Due = at })}},
		{Kind: spool.KindRescheduled, Time: at, Changes: []spool.Change{with(change(0), func(c *spool.Change) { c.Due = at.Add(time.Hour) })}},
		{Kind: spool.KindReturned, Time: at, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindWished, Time: at, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindReported, Time: at, Report: report.ID, Changes: []spool.Change{change(0), change(1)}},
		{Kind: spool.KindReported, Time: at, Report: report.ID, Delay: true, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindReported, Time: at, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindInterrupted, Time: at, Changes: []spool.Change{
			with(change(0), func(c *spool.Change) { c.Due, c.Interrupted, c.Attempts = at.Add(time.Second), 1, 2 }),
		}},
		{Kind: spool.KindMoved, Time: at, Message: two, Changes: []spool.Change{change(0)}},
		{Kind: spool.KindCarried, Time: at, Changes: []spool.Change{change(0)}},
	}
}

// TestEvents holds the lines of each kind of record: they are what programs of others read.
func TestEvents(t *testing.T) {
	t.Parallel()
	var (
		tell teller
		got  []byte
	)
	for i, r := range records() {
		got = append(got, "# "+spool.KindName(r.Kind)+"\n"...)
		got = tell.append(got, journal.Position(i+1)*stride, &r, 0)
	}
	const golden = "testdata/events.jsonl"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(string(got)) {
		if line[0] == '#' {
			continue
		}
		if e, err := event.ParseLine([]byte(line)); err != nil || e.Reason == 0 && e.Type != event.Attempted {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestSkip wants the rest of a record, as it is told after a crash, to have the lines and ids of the first time.
func TestSkip(t *testing.T) {
	t.Parallel()
	r := attempted(testMessage(1, 5), time.Second, delivered)
	var tell teller
	whole := strings.SplitAfter(string(tell.append(nil, 7, &r, 0)), "\n")
	for skip := range len(whole) {
		rest := string(tell.append(nil, 7, &r, skip))
		if want := strings.Join(whole[skip:], ""); rest != want {
			t.Errorf("after %d events:\n%s\nwant:\n%s", skip, rest, want)
		}
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	for _, p := range []journal.Position{0, 1, 0xdeadbeef, 1<<64 - 1} {
		id := string(appendID(nil, p, 12))
		if got, index, ok := parseID(id); !ok || got != p || index != 12 {
			t.Errorf("%s is read as %d, %d, %v", id, got, index, ok)
		}
	}
	for _, id := range []string{"", "refused-00abc", "0000000000000001", "0000000000000001-x", "000000000000000g-1", "01-1", "0000000000000001--1"} {
		if _, _, ok := parseID(id); ok {
			t.Errorf("%q is an id", id)
		}
	}
}

func BenchmarkTell(b *testing.B) {
	for name, r := range map[string]spool.Record{
		"accepted":  accepted(testMessage(1, 1)),
		"attempted": attempted(testMessage(1, 1), time.Second, delivered),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var tell teller
			buf := make([]byte, 0, 1<<16)
			events := 0
			for b.Loop() {
				buf = tell.append(buf[:0], 12345, &r, 0)
			}
			for _, n := range tell.counts {
				events += n
			}
			b.SetBytes(int64(len(buf)))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
		})
	}
}
