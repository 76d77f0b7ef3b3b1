package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
)

func TestFreshMailIsAttemptedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict { return delivered(j) })
		defer b.stop()
		begin := time.Now()
		for i := range 100 {
			b.accept(b.message("t", fmt.Sprint("d", i%7, ".example")))
		}
		synctest.Wait()
		if b.left() != 0 || time.Since(begin) != 0 {
			t.Errorf("%d left after %v", b.left(), time.Since(begin))
		}
		if b.claims != 0 {
			t.Errorf("%d claims for fresh mail", b.claims)
		}
	})
}

func TestMailOfAnEarlierLifeIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{table: newTable(t)}
		b.put(b.message("t", "a.example"), time.Now().Add(-time.Hour))
		b.put(b.message("t", "b.example"), time.Now().Add(time.Hour))
		b.prepare(t, Options{}, &deliver{f: func(_ context.Context, j *Job) Verdict { return delivered(j) }})
		b.accept(b.message("t", "c.example")) // before Run
		b.run()
		defer b.stop()
		synctest.Wait()
		if b.left() != 1 {
			t.Fatalf("%d left, want the one that is due in an hour", b.left())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if b.left() != 0 {
			t.Errorf("%d left", b.left())
		}
	})
}

func TestRetriesFollowTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		b := start(t, Options{Settings: Settings{Jitter: -1}}, func(_ context.Context, j *Job) Verdict {
			if j.Message.Report {
				return delivered(j)
			}
			at = append(at, time.Since(begin))
			return greylisted(j)
		})
		defer b.stop()
		m := b.message("t", "a.example")
		b.accept(m)
		time.Sleep(time.Until(m.Expires.Add(time.Hour)))
		synctest.Wait()
		want := []time.Duration{0}
		elapsed := time.Duration(0)
		for i := 0; ; i++ {
			elapsed += step(DefaultRetry(), i)
			if elapsed >= 72*time.Hour {
				break
			}
			want = append(want, elapsed)
		}
		want = append(want, at[len(at)-1]) // the last one shortly before the end, see TestNextDue
		if fmt.Sprint(at) != fmt.Sprint(want) {
			t.Errorf("attempts at %v\nwant %v", at, want)
		}
		if b.outcomes()[spool.Expired] != 1 {
			t.Errorf("outcomes %v, want one expired", b.outcomes())
		}
		if last := at[len(at)-1]; last < 71*time.Hour+50*time.Minute || last >= 72*time.Hour {
			t.Errorf("last attempt at %v", last)
		}
	})
}

func TestLimitsOfAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		perQueue := make(map[string]*atomic.Int64)
		for i := range 30 {
			perQueue[fmt.Sprint("t", i%3, "/d", i%10)] = new(atomic.Int64)
		}
		b := start(t, Options{Settings: Settings{Attempts: 50, Connections: 8}}, func(_ context.Context, j *Job) Verdict {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if k := perQueue[j.Key.String()].Add(1); k > 8 {
				t.Errorf("%d attempts of one queue", k)
			}
			time.Sleep(time.Second)
			perQueue[j.Key.String()].Add(-1)
			now.Add(-1)
			return delivered(j)
		})
		defer b.stop()
		for i := range 1000 {
			b.accept(b.message(fmt.Sprint("t", i%3), fmt.Sprint("d", i%10)))
		}
		time.Sleep(60 * time.Second)
		synctest.Wait()
		if b.left() != 0 {
			t.Errorf("%d left", b.left())
		}
		if m := most.Load(); m > 50 || m < 45 {
			t.Errorf("at most %d attempts at once, want nearly 50 and no more", m)
		}
	})
}

// A tenant with very much mail, to many domains that are slow, does not delay the one message of another.
func TestTenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun time.Time
		b := start(t, Options{Settings: Settings{Attempts: 50}}, func(_ context.Context, j *Job) Verdict {
			if j.Key.Tenant == "small" {
				begun = time.Now()
				return delivered(j)
			}
			time.Sleep(30 * time.Second)
			return delivered(j)
		})
		defer b.stop()
		for i := range 20_000 {
			b.accept(b.message("big", fmt.Sprint("d", i%2000, ".example")))
		}
		time.Sleep(5 * time.Minute)
		sent := time.Now()
		b.accept(b.message("small", "d1.example"))
		synctest.Wait()
		if begun.IsZero() {
			t.Error("the small tenant's message was not begun at once")
		} else if d := begun.Sub(sent); d > 0 {
			t.Errorf("the small tenant's message waited %v", d)
		}
	})
}

// Dead destinations, however many, leave half of the slots to those that answer.
func TestDeadDestinationsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good atomic.Int64
		b := start(t, Options{Settings: Settings{Attempts: 40}}, func(_ context.Context, j *Job) Verdict {
			if j.Key.Domain == "good.example" {
				good.Add(1)
				return delivered(j)
			}
			time.Sleep(2 * time.Minute)
			return unreachable(j)
		})
		defer b.stop()
		b.accept(b.message("t", "good.example"))
		synctest.Wait()
		for i := range 5000 {
			b.accept(b.message("t", fmt.Sprint("dead", i, ".example")))
		}
		for range 100 {
			time.Sleep(time.Second)
			b.accept(b.message("t", "good.example"))
		}
		synctest.Wait()
		if good.Load() != 101 {
			t.Errorf("%d of 101 messages to the good destination were delivered", good.Load())
		}
	})
}

func TestDomainsOfOneTenantTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		order := make(map[string]int)
		n := 0
		b := start(t, Options{Settings: Settings{Attempts: 1}}, func(_ context.Context, j *Job) Verdict {
			time.Sleep(time.Second)
			n++
			if _, ok := order[j.Key.Domain]; !ok {
				order[j.Key.Domain] = n
			}
			return delivered(j)
		})
		defer b.stop()
		for range 1000 {
			b.accept(b.message("t", "big.example"))
		}
		for i := range 10 {
			b.accept(b.message("t", fmt.Sprint("d", i)))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for i := range 10 {
			if at := order[fmt.Sprint("d", i)]; at == 0 || at > 24 {
				t.Errorf("d%d had its turn as number %d", i, at)
			}
		}
	})
}

func TestDeadDestinationIsSuspendedAndProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries, up := 0, false
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict {
			mu.Lock()
			defer mu.Unlock()
			if up {
				return delivered(j)
			}
			tries++
			return unreachable(j)
		})
		defer b.stop()
		for range 5000 {
			b.accept(b.message("t", "dead.example"))
		}
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		// 3 failures (and what was under way then), then probes: 1, 3, 8, 18, 33, 63 minutes and every 30 from there.
		if tries < 12 || tries > 24 {
			t.Errorf("%d tries in 6 h", tries)
		}
		mu.Lock()
		up = true
		mu.Unlock()
		time.Sleep(31 * time.Minute * 115 / 100)
		synctest.Wait()
		if n := b.left(); n > 30 {
			t.Errorf("%d left after the destination came back", n)
		}
	})
}

func TestNothingIsBegunAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun, ended atomic.Int64
		b := start(t, Options{Settings: Settings{Initial: 3, Connections: 3}}, func(ctx context.Context, j *Job) Verdict {
			begun.Add(1)
			defer ended.Add(1)
			time.Sleep(10 * time.Second)
			if ctx.Err() != nil {
				t.Error("the attempt was aborted before the drain time was over")
			}
			return delivered(j)
		})
		for range 100 {
			b.accept(b.message("t", "a.example"))
		}
		synctest.Wait()
		at := time.Now()
		b.stop()
		if d := time.Since(at); d != 10*time.Second {
			t.Errorf("stop took %v", d)
		}
		if begun.Load() != 3 || ended.Load() != 3 {
			t.Errorf("%d begun, %d ended, want 3", begun.Load(), ended.Load())
		}
		stat, _ := b.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"})
		if stat.Waiting != 97 || stat.Claimed != 0 {
			t.Errorf("after the stop %d wait and %d are claimed", stat.Waiting, stat.Claimed)
		}
		b.accept(b.message("t", "a.example"))
		if stat, _ := b.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"}); stat.Waiting != 98 {
			t.Errorf("mail that came after the stop was not given back: %+v", stat)
		}
	})
}

func TestAttemptsAreAbortedWhenTheDrainTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{DrainTimeout: 7 * time.Second}, func(ctx context.Context, j *Job) Verdict {
			<-ctx.Done()
			return all(j, spool.Result{})
		})
		b.accept(b.message("t", "a.example"))
		synctest.Wait()
		at := time.Now()
		b.stop()
		if d := time.Since(at); d != 7*time.Second {
			t.Errorf("stop took %v", d)
		}
		if stat, _ := b.Queue(spool.QueueKey{Tenant: "t", Domain: "a.example"}); stat.Waiting != 1 {
			t.Errorf("the aborted attempt did not give its entry back: %+v", stat)
		}
	})
}

func TestRecipientsAtOneSiteShareOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jobs [][]string
		hold := make(chan struct{})
		d := &deliver{sites: map[string]string{"a.example": "s1", "b.example": "s1", "c.example": "s2", "x.example": "s1"}}
		var mu sync.Mutex
		d.f = func(_ context.Context, j *Job) Verdict {
			if j.Message.Recipients[0].Domain == "x.example" {
				<-hold
				return delivered(j)
			}
			var to []string
			for _, e := range j.Entries {
				to = append(to, e.Recipient().Domain)
			}
			mu.Lock()
			jobs = append(jobs, to)
			mu.Unlock()
			return delivered(j)
		}
		b := &bench{table: newTable(t)}
		b.prepare(t, Options{}, d)
		b.run()
		defer b.stop()
		b.accept(b.message("t", "a.example", "b.example", "a.example", "c.example", "d.example", "b.example"))
		close(hold)
		synctest.Wait()
		if len(jobs) != 3 {
			t.Errorf("attempts: %v, want three", jobs)
		}
		if b.left() != 0 {
			t.Errorf("%d left", b.left())
		}
	})
}

func TestPanicCostsTheAttemptOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		b := start(t, Options{Settings: Settings{Jitter: -1}}, func(_ context.Context, j *Job) Verdict {
			switch {
			case j.Key.Domain != "a.example":
				return delivered(j)
			case n.Add(1) == 1:
				panic("defect")
			case n.Load() == 2:
				return Verdict{}
			}
			return delivered(j)
		})
		defer b.stop()
		b.accept(b.message("t", "a.example"))
		b.accept(b.message("t", "b.example"))
		synctest.Wait()
		left := b.copies(spool.Filter{})
		if len(left) != 1 || left[0].Attempts != 1 || time.Until(left[0].Due) != 2*time.Minute {
			t.Fatalf("left after the panic: %+v", left)
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		if b.left() != 0 || n.Load() != 3 {
			t.Errorf("%d left after %d calls", b.left(), n.Load())
		}
	})
}

// whatever happens, in whatever order, nothing that is due is forgotten. Random destinations come and go, mail
// comes in bursts, limits change; in the end everything is delivered.
func TestNoWakeUpIsLost(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(seed, 7))
				draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
				var calm atomic.Bool
				b := start(t, Options{
					Window: 1 + draw(50), WindowTotal: 10 + draw(200), Claim: 1 + draw(20), Rand: rand.NewPCG(seed, 8),
					Settings: Settings{Attempts: 1 + draw(20), Connections: 1 + draw(5)},
				}, func(_ context.Context, j *Job) Verdict {
					time.Sleep(time.Duration(draw(3000)) * time.Millisecond)
					switch k := draw(10); {
					case calm.Load() || k < 4:
						return delivered(j)
					case k < 6:
						return unreachable(j)
					case k < 7:
						return all(j, spool.Result{}) // untried
					case k < 8:
						panic("defect")
					default:
						return greylisted(j)
					}
				})
				defer b.stop()
				for range 40 {
					for range draw(20) {
						domains := []string{fmt.Sprint("d", draw(12))}
						for range draw(3) {
							domains = append(domains, fmt.Sprint("d", draw(12)))
						}
						b.accept(b.message(fmt.Sprint("t", draw(3)), domains...))
					}
					time.Sleep(time.Duration(draw(20_000)) * time.Millisecond)
					if draw(5) == 0 {
						if err := b.s.SetSettings(Settings{Attempts: 1 + draw(20), Connections: 1 + draw(5)}); err != nil {
							t.Error(err)
						}
					}
				}
				calm.Store(true)
				for range 20 {
					time.Sleep(time.Hour)
					if b.left() == 0 {
						return
					}
				}
				t.Errorf("%d entries are stuck: %+v", b.left(), b.Queues())
			})
		})
	}
}

// Fresh mail beyond the windows goes back to the spool and comes again; memory holds no more than it may.
func TestWindowsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, total, slots = 50, 120, 20 // each worker may have one entry beyond the total
		var b *bench
		most := 0
		b = start(t, Options{
			Window: window, WindowTotal: total, Claim: 10, Settings: Settings{Attempts: slots},
		}, func(_ context.Context, j *Job) Verdict {
			b.s.mu.Lock()
			most = max(most, b.s.mu.entries)
			for _, q := range b.s.mu.queues {
				if q.entries > window {
					t.Errorf("%d entries in the window of %v", q.entries, q.key)
				}
				if q.tenant.room > total/2+slots {
					t.Errorf("tenant %s takes %d of the windows", q.tenant.name, q.tenant.room)
				}
			}
			b.s.mu.Unlock()
			time.Sleep(time.Second)
			return delivered(j)
		})
		defer b.stop()
		for i := range 3000 {
			b.accept(b.message(fmt.Sprint("t", i%3), fmt.Sprint("d", i%9)))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if b.left() != 0 {
			t.Errorf("%d left", b.left())
		}
		if most > total+slots || most < window {
			t.Errorf("at most %d entries in windows, want nearly %d", most, total)
		}
	})
}

// Recipients of one message take less of the windows than as many messages do, and are counted as what they are.
func TestRecipientsOfAMessageShareTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, recipients = 40, 10 * spool.Share
		most := 0
		var b *bench
		b = start(t, Options{Window: window, Settings: Settings{Attempts: 1}}, func(_ context.Context, j *Job) Verdict {
			info, _ := b.s.Queue(j.Key)
			most = max(most, info.Window)
			time.Sleep(time.Second)
			return delivered(j)
		})
		defer b.stop()
		for range 20 {
			b.accept(b.message("t", slices.Repeat([]string{"a.example"}, recipients)...))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if b.left() != 0 || most > window*spool.Share || most < window*spool.Share-recipients {
			t.Errorf("%d left; at most %d entries in the window, want nearly %d", b.left(), most, window*spool.Share)
		}
	})
}

// Many queues that are due at once do not each come to hold some entries in memory, and are not claimed one by one.
func TestManyDueQueuesStayWithinTheWindows(t *testing.T) {
	const total, slots, queues, each = 100, 4, 60, 32
	for _, takes := range []time.Duration{time.Millisecond, 5 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var b *bench
				most := 0
				b = &bench{table: newTable(t)}
				b.prepare(t, Options{WindowTotal: total, Settings: Settings{Attempts: slots}}, &deliver{
					f: func(_ context.Context, j *Job) Verdict {
						b.s.mu.Lock()
						most = max(most, b.s.mu.entries)
						b.s.mu.Unlock()
						time.Sleep(takes)
						return delivered(j)
					},
				})
				for i := range queues * each {
					b.put(b.message(fmt.Sprint("t", i%5), fmt.Sprint("d", i%queues)), time.Now())
				}
				b.run()
				defer b.stop()
				time.Sleep(2 * takes * queues * each / slots)
				synctest.Wait()
				if n := b.left(); n != 0 {
					t.Errorf("%d left", n)
				}
				if most > total+2*slots*leastClaim {
					t.Errorf("%d entries in windows, more than %d and what %d attempts may claim", most, total, slots)
				}
				claims := b.claims
				if claims > queues*each/leastClaim+queues && takes < longestTurn/leastClaim {
					t.Errorf("%d claims for %d entries", claims, queues*each)
				}
			})
		})
	}
}

// Retries of a queue get their turn although fresh mail keeps coming.
func TestFreshMailDoesNotStarveRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{table: newTable(t)}
		for range 300 {
			b.put(b.message("t", "a.example"), time.Now())
		}
		b.prepare(t, Options{Window: 40, Claim: 10, Settings: Settings{Connections: 2}},
			&deliver{f: func(_ context.Context, j *Job) Verdict {
				time.Sleep(100 * time.Millisecond)
				return delivered(j)
			}})
		old := b.copies(spool.Filter{})
		b.run()
		defer b.stop()
		for range 600 { // 20 a second go, 20 come
			time.Sleep(50 * time.Millisecond)
			b.accept(b.message("t", "a.example"))
		}
		waiting := make(map[spool.EntryID]bool)
		for _, e := range b.copies(spool.Filter{}) {
			waiting[e.ID()] = true
		}
		left := 0
		for _, e := range old {
			if waiting[e.ID()] {
				left++
			}
		}
		if left > 100 {
			t.Errorf("%d of 300 retries are left after half a minute of fresh mail", left)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Options{})
	for _, want := range []string{"no Spool", "no Deliverer", "no Store", "no IDs", "no Hostname"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New says %v, not %q", err, want)
		}
	}
	b := &bench{table: newTable(t)}
	b.prepare(t, Options{}, &deliver{})
	for _, bad := range []Settings{
		{Jitter: 51}, {Attempts: -1}, {Connections: -1}, {Retry: []time.Duration{0}}, {Probes: []time.Duration{-1}},
		{DelayNotices: 9}, {SuspendAfter: -1}, {Pause: -1},
	} {
		if err := b.s.SetSettings(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if got := b.s.mu.settings.Attempts; got != 500 {
		t.Errorf("bad settings left %d attempts", got)
	}
}
