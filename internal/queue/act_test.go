package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// slow delivers after ten seconds; only so many at once.
func slow(_ context.Context, j *Job) Verdict {
	time.Sleep(10 * time.Second)
	return delivered(j)
}

func narrow() Options { return Options{Settings: Settings{Initial: 2, Connections: 2}} }

func inState(b *bench, state spool.State) (n int) {
	for _, e := range b.copies(spool.Filter{States: []spool.State{state}}) {
		if e.State == state {
			n++
		}
	}
	return n
}

func TestHoldOfAQueueCountsForLaterMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		b := start(t, narrow(), slow)
		for range 10 {
			b.accept(b.message("t", "a.example"))
			b.accept(b.message("t", "b.example"))
		}
		synctest.Wait()
		c, err := b.s.Hold(ctx, Selection{Domain: "a.example"}, "their postmaster asked")
		if err != nil || len(c.Set) != 1 || c.Set[0].String() != "all mail to a.example" {
			t.Fatalf("Hold: %+v, %v", c, err)
		}
		b.accept(b.message("t", "a.example"))
		b.accept(b.message("u", "a.example", "b.example"))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if b.left() != 10 || inState(b, spool.Held) != 10 { // two were in flight and are delivered
			t.Fatalf("%d left, %d held", b.left(), inState(b, spool.Held))
		}
		e := b.copies(spool.Filter{})[0]
		if why := b.s.Explain(e)[0]; why.Code != Held || why.Text != "held by operator: their postmaster asked" {
			t.Errorf("why: %+v", why)
		}

		// The rule outlives the process.
		rules, kept := b.s.Rules(), b.s.o.Store
		b.stop()
		again := &bench{table: b.table}
		o := narrow()
		o.Store = kept
		again.prepare(t, o, &deliver{f: slow})
		again.run()
		defer again.stop()
		got := again.s.Rules()
		if len(got) != 1 || got[0].key() != rules[0].key() || got[0].Reason != "their postmaster asked" {
			t.Fatalf("rules after the restart: %+v", got)
		}
		again.accept(again.message("t", "a.example"))
		if n := inState(again, spool.Held); n != 11 {
			t.Fatalf("%d held after the restart, want 11", n)
		}

		one := again.copies(spool.Filter{})[0].ID()
		if c, err = again.s.Release(ctx, Selection{Entry: one}); err != nil || c.Entries != 1 || len(c.Removed) != 0 {
			t.Fatalf("Release of one: %+v, %v", c, err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := again.left(); n != 10 {
			t.Fatalf("the released entry was not delivered: %d left", n)
		}
		c, err = again.s.Release(ctx, Selection{Domain: "a.example"})
		if err != nil || c.Entries != 10 || len(c.Removed) != 1 || len(again.s.Rules()) != 0 {
			t.Fatalf("Release: %+v, %v", c, err)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if again.left() != 0 {
			t.Errorf("%d left", again.left())
		}
	})
}

func TestRulesOfOtherNodesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict { return delivered(j) })
		defer b.stop()
		r := Rule{Sender: "@example.org", Since: time.Now()}
		value, _ := json.Marshal(r)
		b.s.o.Store.(*memory).put <- store.Change{KV: store.KV{Key: r.key(), Value: value}}
		synctest.Wait()
		b.accept(b.message("t", "a.example"))
		synctest.Wait()
		if inState(b, spool.Held) != 1 {
			t.Error("the rule does not count")
		}
		b.s.o.Store.(*memory).put <- store.Change{KV: store.KV{Key: r.key()}, Deleted: true}
		synctest.Wait()
		if n := len(b.s.Rules()); n != 0 {
			t.Errorf("%d rules left", n)
		}
	})
}

// Mail that was accepted under a rule, but came back after a crash since the hold was not yet recorded, is held.
func TestRuleSurvivesACrashBetweenAcceptanceAndHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Store: &memory{keys: make(map[string][]byte), put: make(chan store.Change)}}
		r := Rule{Domain: "a.example", Reason: "r", Since: time.Now()}
		value, _ := json.Marshal(r)
		o.Store.(*memory).keys[r.key()] = value
		b := &bench{table: newTable(t)}
		b.put(b.message("t", "a.example"), time.Now())
		for e := range b.entries {
			e.Interrupted = 1
		}
		b.prepare(t, o, &deliver{f: func(_ context.Context, j *Job) Verdict { return delivered(j) }})
		b.run()
		defer b.stop()
		synctest.Wait()
		if inState(b, spool.Held) != 1 {
			t.Error("it was not held")
		}
	})
}

func TestActionsReachWhatIsClaimed(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(ctx context.Context, s *Scheduler) (Changed, error)
		want map[spool.Outcome]int
		held int
	}{
		{"hold", func(ctx context.Context, s *Scheduler) (Changed, error) {
			return s.Hold(ctx, Selection{All: true}, "x")
		}, map[spool.Outcome]int{}, 10},
		{"bounce", func(ctx context.Context, s *Scheduler) (Changed, error) {
			return s.Bounce(ctx, Selection{Domain: "a.example"}, "x")
		}, map[spool.Outcome]int{spool.Bounced: 10}, 0},
		{"cancel", func(ctx context.Context, s *Scheduler) (Changed, error) {
			return s.Cancel(ctx, Selection{Sender: "sender@example.org"}, "x")
		}, map[spool.Outcome]int{spool.Cancelled: 10}, 0},
		{"cancel by recipient", func(ctx context.Context, s *Scheduler) (Changed, error) {
			return s.Cancel(ctx, Selection{Recipient: "user0@a.example"}, "x")
		}, map[spool.Outcome]int{spool.Cancelled: 10}, 0},
		{"cancel by the sender's domain", func(ctx context.Context, s *Scheduler) (Changed, error) {
			return s.Cancel(ctx, Selection{Sender: "@EXAMPLE.org"}, "x")
		}, map[spool.Outcome]int{spool.Cancelled: 10}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, narrow(), func(_ context.Context, j *Job) Verdict {
					time.Sleep(10 * time.Second)
					return greylisted(j)
				})
				defer b.stop()
				for range 10 {
					b.accept(b.message("t", "a.example"))
				}
				synctest.Wait()
				got, err := c.act(t.Context(), b.s)
				if err != nil || got.Entries != 10 {
					t.Fatalf("%+v, %v", got, err)
				}
				n := inState(b, spool.Claimed)
				if n != 2 { // what was claimed again in the midst of the act is given back a moment after it
					synctest.Wait()
					n = inState(b, spool.Claimed)
				}
				if n != 2 {
					t.Errorf("%d are still claimed, want the two in flight", n)
				}
				time.Sleep(11 * time.Second)
				synctest.Wait()
				if fmt.Sprint(b.outcomes()) != fmt.Sprint(c.want) || inState(b, spool.Held) != c.held {
					t.Errorf("final %v, held %d", b.outcomes(), inState(b, spool.Held))
				}
			})
		})
	}
}

func TestRetryLiftsASuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var tries atomic.Int64
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			if up.Load() {
				return delivered(j)
			}
			tries.Add(1)
			return unreachable(j)
		})
		defer b.stop()
		for range 100 {
			b.accept(b.message("t", "a.example"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		before := tries.Load()
		if _, err := b.s.Retry(t.Context(), Selection{Domain: "a.example"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if tries.Load() != before+1 {
			t.Errorf("%d tries after Retry, want one more than %d", tries.Load(), before)
		}
		up.Store(true)
		one := b.copies(spool.Filter{})[0]
		if _, err := b.s.Retry(t.Context(), Selection{Message: one.Message.ID}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := b.left(); n > 10 {
			t.Errorf("%d left after the destination is back", n)
		}
	})
}

func TestSelections(t *testing.T) {
	t.Parallel()
	id := spool.EntryID{Index: 1}
	id.Message[3] = 7
	for _, c := range []struct {
		sel  Selection
		ok   bool
		rule bool
	}{
		{Selection{}, false, false},
		{Selection{State: spool.Held}, false, false},
		{Selection{All: true}, true, true},
		{Selection{All: true, State: spool.Held}, true, false},
		{Selection{All: true, Tenant: "t"}, false, false},
		{Selection{Sender: "nobody"}, false, false},
		{Selection{Sender: "@example.org"}, true, true},
		{Selection{Tenant: "t", Domain: "d"}, true, true},
		{Selection{Recipient: "a@b"}, true, false},
		{Selection{Entry: id}, true, false},
		{Selection{Message: id.Message}, true, false},
	} {
		err := c.sel.check()
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSelection) {
			t.Errorf("%s: %v", &c.sel, err)
		}
		if _, rule := c.sel.rule(); c.ok && rule != c.rule {
			t.Errorf("%s: rule %v", &c.sel, rule)
		}
	}
}

func TestSendersOfRules(t *testing.T) {
	t.Parallel()
	m := &spool.Message{From: smtp.Sender{Path: smtp.Path{Local: "Ann Lee", Domain: "Example.org"}}}
	for sender, want := range map[string]bool{
		`"Ann Lee"@example.org`: true,
		`"ann lee"@example.org`: false, // local parts keep their case
		"@example.ORG":          true,
		"@ample.org":            false,
		"ann@example.org":       false,
	} {
		if got := sentBy(m, sender); got != want {
			t.Errorf("%s: %v", sender, got)
		}
	}
	wide, narrow := Rule{Sender: "@example.org"}, Rule{Tenant: "t", Sender: "a@example.org"}
	if !wide.covers(&narrow) || narrow.covers(&wide) {
		t.Error("covers")
	}
}

func TestWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, narrow(), func(_ context.Context, j *Job) Verdict {
			switch j.Key.Domain {
			case "grey.example":
				return greylisted(j)
			case "dead.example":
				return unreachable(j)
			case "odd.example":
				return all(j, spool.Result{Explanation: "no file handle is free"})
			}
			j.Enter("RCPT", "mx1.slow.example", time.Now())
			time.Sleep(time.Minute)
			return delivered(j)
		})
		defer b.stop()
		const early = "00:0" // some minutes at most; the bubble's clock begins at midnight UTC, see TestMain
		for range 5 {
			b.accept(b.message("t", "slow.example"))
		}
		b.accept(b.message("t", "grey.example"))
		b.accept(b.message("t", "odd.example"))
		for range 10 {
			b.accept(b.message("t", "dead.example"))
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		var texts []string
		for _, d := range []string{"slow.example", "grey.example", "dead.example", "odd.example"} {
			entries := b.copies(spool.Filter{Domain: d})
			for i, w := range b.s.Explain(entries...) {
				texts = append(texts, fmt.Sprintf("%s %s %s: %s", d, entries[i].State, w.Code, w.Text))
			}
			info, _ := b.s.Queue(spool.QueueKey{Tenant: "t", Domain: d})
			texts = append(texts, fmt.Sprintf("%s queue %s: %s", d, info.Why.Code, info.Why.Text))
		}
		text := strings.Join(texts, "\n")
		for _, want := range []string{
			"slow.example claimed in_flight: in flight to mx1.slow.example since 500ms, phase RCPT",
			"slow.example claimed queue_busy: all 2 connections to this queue are busy\n",
			"slow.example claimed queue_busy: all 2 connections to this queue are busy; 2 entries of this queue before it",
			"slow.example queue in_flight: delivering: 2 of 2 connections busy",
			"mx1.example.com answered 451 4.7.1 Greylisted at " + early,
			"grey.example waiting scheduled: next attempt in ",
			"dead.example waiting suspended: destination suspended until " + early,
			": connection refused by mx1.example.com [192.0.2.1]:25 (3 tries, first at " + early,
			"dead.example queue suspended: destination suspended until " + early,
			"odd.example waiting paused: this server could not make the attempt and tries again in 500ms: " +
				"no file handle is free",
		} {
			if !strings.Contains(text+"\n", want) {
				t.Errorf("nowhere: %s\nin\n%s", want, text)
			}
		}
	})
}

func TestWhyNamesTheLimitOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Settings: Settings{Attempts: 4}}, slow) // two for the unproven, and of these one for a tenant
		defer b.stop()
		for i := range 10 {
			b.accept(b.message("t", fmt.Sprint("d", i)))
		}
		synctest.Wait()
		want := "the one attempt is under way that tenant t may make at destinations that have not answered lately; " +
			"the queue waits for its turn"
		got := make(map[Code]int)
		for _, w := range b.s.Explain(b.copies(spool.Filter{})...) {
			got[w.Code]++
			if w.Code == ServerBusy && w.Text != want {
				t.Errorf("text: %s\nwant: %s", w.Text, want)
			}
		}
		if got[ServerBusy] == 0 || got[InFlight] == 0 {
			t.Errorf("codes: %v", got)
		}
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			if strings.HasPrefix(j.Key.Domain, "dead") {
				return unreachable(j)
			}
			return greylisted(j)
		})
		defer b.stop()
		for i := range 20 {
			for range i + 1 {
				b.accept(b.message(fmt.Sprint("t", i%2), fmt.Sprint("d", i, ".example")))
			}
		}
		for range 5 {
			b.accept(b.message("t0", "dead.example"))
		}
		synctest.Wait()
		l := b.s.List(Query{Limit: 3})
		if l.Total != 21 || l.Entries != 215 || len(l.Queues) != 3 || l.Queues[0].Key.Domain != "d19.example" ||
			l.Queues[0].Waiting != 20 || l.Queues[0].Why.Code != Scheduled {
			t.Errorf("most entries: %+v", l)
		}
		if l = b.s.List(Query{Tenant: "t1", Order: ByName}); l.Total != 10 || l.Queues[0].Key.Domain != "d1.example" {
			t.Errorf("one tenant: %+v", l)
		}
		if l = b.s.List(Query{Suspended: true}); l.Total != 1 || l.Queues[0].Why.Code != Suspended {
			t.Errorf("suspended: %+v", l)
		}
		if l = b.s.List(Query{Domain: "*.example", State: spool.Held}); l.Total != 0 || len(l.Queues) != 0 {
			t.Errorf("held: %+v", l)
		}
		if l = b.s.List(Query{Order: ByDue}); len(l.Queues) != 21 || l.Queues[0].NextDue.After(l.Queues[20].NextDue) {
			t.Errorf("by due: %+v", l)
		}
	})
}

func TestCodesHaveNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range Codes() {
		if c.String() == "" || seen[c.String()] {
			t.Errorf("code %d: %q", c, c)
		}
		seen[c.String()] = true
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second:                         "0s",
		1500 * time.Microsecond:              "2ms",
		3*time.Minute + 12*time.Second:       "3m12s",
		10 * time.Minute:                     "10m",
		2*time.Hour + 29*time.Second:         "2h",
		2*time.Hour + 17*time.Minute:         "2h17m",
		72 * time.Hour:                       "3d",
		75*time.Hour + 59*time.Minute:        "3d4h",
		72*time.Hour - time.Second:           "3d",
		49*time.Hour + 31*time.Minute:        "2d2h",
		time.Minute + 59600*time.Millisecond: "2m",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
