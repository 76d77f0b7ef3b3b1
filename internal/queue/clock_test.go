package queue

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

const (
	testDay  = 24 * time.Hour
	testYear = 365 * testDay
)

// walk lets time pass and sets the clock: pairs of how long it runs and by how much it is then set.
func walk(c *wallClock, steps ...time.Duration) {
	for i, d := range steps {
		if i%2 == 0 {
			c.look(c.seen.Add(d), d)
			continue
		}
		if by := c.look(c.seen.Add(d), 0); by != d {
			panic("a step is not seen")
		}
	}
}

// N-2: how old a message is does not follow from what the clock was set to.
func TestExpiryFollowsTheTimeThatPassed(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const life = 72 * time.Hour
	for _, c := range []struct {
		name     string
		received time.Duration // after start; the clock is read before the walk and after what of it comes before
		before   []time.Duration
		after    []time.Duration
		left     time.Duration // of its life
	}{
		{"nothing happened", 0, nil, []time.Duration{time.Hour}, life - time.Hour},
		{"an hour forward", 0, nil, []time.Duration{time.Hour, time.Hour, time.Minute}, life - time.Hour - time.Minute},
		{"a day back", 0, nil, []time.Duration{25 * time.Hour, -testDay, time.Minute}, life - 25*time.Hour - time.Minute},
		{"ten years forward", 0, nil, []time.Duration{time.Minute, 10 * testYear, time.Hour}, life - time.Hour - time.Minute},
		{"and back", 0, nil, []time.Duration{time.Minute, 10 * testYear, time.Hour, -10 * testYear, time.Hour},
			life - 2*time.Hour - time.Minute},
		{"came after the step", 10 * testYear, []time.Duration{0, 10 * testYear}, []time.Duration{time.Hour}, life - time.Hour},
		{"came in between", 10*testYear + time.Hour, []time.Duration{0, 10 * testYear, time.Hour},
			[]time.Duration{time.Hour, -10 * testYear, time.Minute}, life - time.Minute}, // never earlier than it should
		{"an hour back, and it came just before", 30 * time.Minute, []time.Duration{30 * time.Minute},
			[]time.Duration{time.Minute, -time.Hour, 2 * time.Hour}, life - time.Hour - time.Minute},
		{"drift is no step", 0, nil, []time.Duration{time.Hour, 0}, life - time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := wallClock{seen: start}
			walk(&w, c.before...)
			m := &spool.Message{Received: start.Add(c.received), Expires: start.Add(c.received + life)}
			walk(&w, c.after...)
			if left := w.expires(m).Sub(w.seen); left != c.left {
				t.Errorf("%s are left, want %s", left, c.left)
			}
			if w.tooOld(m) {
				t.Error("it is too old")
			}
			w.look(w.seen.Add(c.left), c.left)
			if !w.tooOld(m) {
				t.Error("it never grows too old")
			}
		})
	}
}

// N-2: a message that comes after the clock was set back, and before anybody has looked at it, is as old as it is; so is one that
// came in this life, whose times know the monotonic clock too.
func TestTheLookComesLater(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, back := range []time.Duration{-time.Hour, -testDay, -10 * testYear} {
		w := wallClock{seen: start}
		walk(&w, time.Minute)
		came := w.seen.Add(back + 2*time.Second)
		m := &spool.Message{Received: came, Expires: came.Add(30 * time.Minute), DelayNotice: came.Add(20 * time.Minute)}
		if by := w.look(w.seen.Add(back+5*time.Second), 5*time.Second); by != back {
			t.Fatalf("the clock was set by %s", by)
		}
		if left := w.expires(m).Sub(w.seen); left != 30*time.Minute-3*time.Second {
			t.Errorf("after %s %s are left", back, left)
		}
		if w.tooOld(m) || w.late(m) {
			t.Errorf("after %s it is too old or late", back)
		}
	}

	now := time.Now()
	w := wallClock{seen: now}
	m := &spool.Message{Received: now, Expires: now.Add(time.Hour)}
	if w.seen = now.Add(time.Second); w.tooOld(m) {
		t.Error("too old after a second")
	}
	w.look(now.Round(0).Add(testDay), time.Minute) // a day forward: the times of m as its monotonic parts have them say nothing
	if left := w.expires(m).Sub(w.seen.Round(0)); (left - time.Hour + time.Minute + time.Second).Abs() > time.Second {
		t.Errorf("%s are left", left)
	}
}

// What an earlier life left is tried for a while, however old it seems; and a clock that jumps about does not fill memory.
func TestEarlierLivesAreTriedAgain(t *testing.T) {
	t.Parallel()
	start := time.Date(2036, 3, 1, 12, 0, 0, 0, time.UTC)
	w := wallClock{seen: start}
	m := &spool.Message{Received: start.Add(-10 * testYear), Expires: start.Add(3*testDay - 10*testYear)}
	if at := w.expires(m); at != start.Add(afterlife) {
		t.Errorf("expires %s after the start", at.Sub(start))
	}
	if at := w.expires(&spool.Message{Received: m.Received}); !at.IsZero() {
		t.Errorf("what never expires does so at %s", at)
	}
	for range 10 * maxSteps {
		walk(&w, time.Minute, time.Hour, time.Minute, -time.Hour)
	}
	if len(w.steps) > maxSteps {
		t.Errorf("%d steps are kept", len(w.steps))
	}
}

func TestDelayNoticesFollowTheTimeThatPassed(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := wallClock{seen: start}
	m := &spool.Message{Received: start, Expires: start.Add(72 * time.Hour), DelayNotice: start.Add(4 * time.Hour)}
	walk(&w, time.Hour, 10*testYear, time.Hour)
	if w.late(m) {
		t.Error("late after two hours")
	}
	walk(&w, 2*time.Hour)
	if !w.late(m) {
		t.Error("not late after four hours")
	}
}

// N-2: nothing waits longer than it was meant to.
func TestSooner(t *testing.T) {
	t.Parallel()
	s := Settings{Jitter: -1}
	s.fill()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name           string
		received, last time.Duration // from now
		attempts       int
		due            time.Duration
		wait           time.Duration
		ok             bool
	}{
		{"as it should be", -time.Hour, -time.Minute, 1, time.Minute, 0, false},
		{"the longest pause", -time.Hour, -time.Minute, 9, 5 * time.Hour, 0, false},
		{"tried tomorrow, due four minutes later", -time.Hour, testDay, 2, testDay + 4*time.Minute, 4 * time.Minute, true},
		{"tried in ten years", -time.Hour, 10 * testYear, 9, 10*testYear + 4*time.Hour, 4 * time.Hour, true},
		{"came in ten years, never tried", 10 * testYear, -100 * testYear, 0, 10*testYear + time.Second, time.Second, true},
		{"given back in ten years", -time.Hour, -time.Hour, 1, 10 * testYear, 2 * time.Minute, true},
		{"due now", -time.Hour, time.Hour, 1, 0, 0, false},
	} {
		e := &spool.Entry{
			Message:  &spool.Message{Received: now.Add(c.received)},
			Attempts: c.attempts, LastAttempt: now.Add(c.last), Due: now.Add(c.due),
		}
		wait, ok := sooner(e, now, &s, rand.New(rand.NewPCG(1, 1)))
		if ok != c.ok || ok && wait != c.wait {
			t.Errorf("%s: %s, %v", c.name, wait, ok)
		}
	}
	for _, d := range []time.Duration{0, 1, time.Second, 17 * time.Minute, 4 * time.Hour} {
		if r := roughly(d); r > d || float64(r) < 0.93*float64(d) {
			t.Errorf("%s is roughly %s", d, r)
		}
	}
}

// N-2: after a start at a time before that of the last life, what was recorded then is due when it was meant to be, even
// where mail of now hides it.
func TestWhatIsDueInTenYearsIsNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{table: newTable(t)}
		const n = 3000
		for i := range n {
			m := b.message("t", []string{"a.example", "b.example"}[i%2])
			m.Received = m.Received.Add(10 * testYear)
			m.Expires = m.Received.Add(72 * time.Hour)
			b.put(m, m.Received.Add(time.Duration(1+i%300)*time.Second))
		}
		b.put(b.message("t", "a.example"), time.Now().Add(3*time.Hour))
		b.prepare(t, Options{}, &deliver{f: func(_ context.Context, j *Job) Verdict { return delivered(j) }})
		b.run()
		defer b.stop()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if left := b.left(); left < n/3 || left > 2*n/3+1 {
			t.Errorf("%d are left after 2 of 5 minutes", left)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if left := b.left(); left != 1 {
			t.Errorf("%d are left", left)
		}
	})
}
