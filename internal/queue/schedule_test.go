package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestNextDue(t *testing.T) {
	t.Parallel()
	s := Settings{Jitter: -1}
	s.fill()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	far := now.Add(72 * time.Hour)
	for _, c := range []struct {
		name     string
		expires  time.Time
		attempts int
		hint     time.Duration
		min, max time.Duration
	}{
		{"first retry", far, 1, 0, 2 * time.Minute, 2 * time.Minute},
		{"second retry", far, 2, 0, 5 * time.Minute, 5 * time.Minute},
		{"the last value repeats", far, 99, 0, 4 * time.Hour, 4 * time.Hour},
		{"a longer hint is obeyed", far, 1, 15 * time.Minute, 15 * time.Minute, 15 * time.Minute},
		{"a hint is bounded", far, 1, 100 * time.Hour, 4 * time.Hour, 4 * time.Hour},
		{"a hint brings the first retry forward", far, 1, 70 * time.Second, 70 * time.Second, 70 * time.Second},
		{"but not at will", far, 1, time.Second, time.Minute, time.Minute},
		{"nor later retries", far, 5, time.Second, 40 * time.Minute, 40 * time.Minute},
		{"never expires", time.Time{}, 1, 0, 2 * time.Minute, 2 * time.Minute},
		{"one more try before the end", now.Add(3 * time.Hour), 9, 0, 172 * time.Minute, 178 * time.Minute},
		{"no more try so soon", now.Add(time.Hour), 9, 0, time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := nextDue(now, c.expires, c.attempts, c.hint, &s, rand.New(rand.NewPCG(1, 1))).Sub(now)
			if got < c.min || got > c.max {
				t.Errorf("got %v, want %v to %v", got, c.min, c.max)
			}
		})
	}
}

// K-5: mail deferred together does not come back together.
func TestJitterSpreads(t *testing.T) {
	t.Parallel()
	var s Settings
	s.fill()
	r := rand.New(rand.NewPCG(1, 1))
	now := time.Now()
	perSecond := make(map[int64]int)
	const n, hint = 10_000, 5 * time.Minute
	for range n {
		d := nextDue(now, now.Add(72*time.Hour), 4, 0, &s, r).Sub(now)
		if d < 17*time.Minute || d > 23*time.Minute {
			t.Fatalf("pause %v", d)
		}
		perSecond[int64(d/time.Second)]++
		if d := nextDue(now, now.Add(72*time.Hour), 2, hint, &s, r).Sub(now); d < hint {
			t.Fatalf("pause %v is shorter than the remote asked", d)
		}
	}
	for _, k := range perSecond {
		if k > n/100 {
			t.Errorf("%d of %d entries come back in one second", k, n)
		}
	}
}

func TestAlarmsComeInOrder(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	base := time.Now()
	var a alarms
	queues := make([]*queue, 200)
	for i := range queues {
		queues[i] = new(queue)
	}
	for range 5000 {
		q := queues[r.IntN(len(queues))]
		if r.IntN(4) == 0 {
			a.remove(q)
			continue
		}
		a.set(q, base.Add(time.Duration(r.IntN(1000))))
	}
	var want, got []time.Time
	for _, q := range queues {
		if q.alarm != 0 {
			want = append(want, q.wakeAt)
		}
	}
	slices.SortFunc(want, time.Time.Compare)
	for q := a.first(); q != nil; q = a.first() {
		got = append(got, q.wakeAt)
		a.remove(q)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestDequeKeepsOrderAndNumbers(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	var d deque[uint64]
	next, oldest := uint64(0), uint64(0)
	for range 100_000 {
		if r.IntN(1000) == 0 {
			for d.Len() > 0 {
				d.Pop()
				oldest++
			}
			d.Shrink()
		}
		if r.IntN(2) == 0 {
			if n := d.Push(next); n != next {
				t.Fatalf("value %d has number %d", next, n)
			}
			next++
			continue
		}
		v, ok := d.Pop()
		if ok != (oldest < next) || ok && v != oldest {
			t.Fatalf("got %d, %v; want %d", v, ok, oldest)
		}
		if ok {
			oldest++
		}
		if at := d.At(next); at != nil {
			t.Fatal("a value that was not pushed is there")
		}
		if oldest < next {
			if k := oldest + r.Uint64N(next-oldest); *d.At(k) != k {
				t.Fatalf("number %d is value %d", k, *d.At(k))
			}
		}
	}
}
