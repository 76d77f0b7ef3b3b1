package limits_test

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission/limits"
)

func quota(t testing.TB, numbers ...string) limits.Quota {
	t.Helper()
	var q limits.Quota
	for i := 0; i < len(numbers); i += 3 {
		n, err := strconv.ParseInt(numbers[i+2], 10, 64)
		if err != nil || !q.Set(numbers[i], numbers[i+1], n) {
			t.Fatalf("no such limit: %v", numbers[i:i+3])
		}
	}
	return q
}

func limiter(t testing.TB, c limits.Config) *limits.Limiter {
	t.Helper()
	l, err := limits.New(limits.Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var (
	shop   = limits.LimitSet{Kind: limits.Tenant, Name: "shop"}
	app    = limits.LimitSet{Kind: limits.Credential, Name: "app"}
	laptop = limits.LimitSet{Kind: limits.Client, Name: "192.0.2.1"}
	one    = limits.Amount{Messages: 1, Recipients: 1, Bytes: 1000, Unique: []uint64{limits.Hash("a", "b.test")}}
)

// TestNeverMoreInAnyWindow is the promise of a limit: whatever the moments, no span holds more than its limit.
func TestNeverMoreInAnyWindow(t *testing.T) {
	t.Parallel()
	for span, length := range map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour} {
		t.Run(span, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limiter(t, limits.Config{Tenant: quota(t, "messages", span, "50")})
				var taken []time.Time
				refused := 0
				for i := range 2000 {
					_, r := l.Take([]limits.LimitSet{shop}, one)
					if r == nil {
						taken = append(taken, time.Now())
					} else if refused++; !r.Room.After(time.Now()) || time.Until(r.Room) > length+length/6 {
						t.Fatalf("room in %v", time.Until(r.Room))
					}
					time.Sleep(length / 200 * time.Duration(i%7) / 3)
				}
				if refused == 0 {
					t.Error("nothing was refused")
				}
				for i := 50; i < len(taken); i++ {
					if d := taken[i].Sub(taken[i-50]); d < length {
						t.Fatalf("51 messages within %v", d)
					}
				}
			})
		})
	}
}

// TestRoomIsTrue: at the time that a refusal names there is room, and a moment before there was none.
func TestRoomIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limits.Config{Tenant: quota(t, "bytes", "hour", "10000")})
		for range 10 {
			if _, r := l.Take([]limits.LimitSet{shop}, one); r != nil {
				t.Fatal(r)
			}
			time.Sleep(4 * time.Minute)
		}
		_, r := l.Take([]limits.LimitSet{shop}, one)
		if r == nil || r.Subject != limits.Bytes || r.Span != limits.Hour || r.Used != 10000 || r.Max != 10000 || r.Permanent ||
			r.Source != "quotas.tenant" {
			t.Fatalf("%+v", r)
		}
		time.Sleep(time.Until(r.Room) - time.Second)
		if l.Check([]limits.LimitSet{shop}, one) == nil {
			t.Error("room too soon")
		}
		time.Sleep(time.Second)
		if r := l.Check([]limits.LimitSet{shop}, one); r != nil {
			t.Error(r)
		}
	})
}

func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	l := limiter(t, limits.Config{Client: quota(t, "messages", "day", "2")})
	sets := []limits.LimitSet{shop, app, laptop}
	for range 2 {
		if _, r := l.Take(sets, one); r != nil {
			t.Fatal(r)
		}
	}
	for range 3 {
		if _, r := l.Take(sets, one); r == nil || r.Kind != limits.Client || r.Name != "192.0.2.1" {
			t.Fatalf("%v", r)
		}
	}
	for _, st := range l.Explain(limits.Query{Kind: limits.Tenant, Of: true}) {
		if st.Subject == limits.Messages && st.Used != 2 {
			t.Errorf("%s has used %d of %s", st.Name, st.Used, limits.Name(st.Subject, st.Span))
		}
	}
	states := l.Explain(limits.Query{Kind: limits.Client, Of: true, Name: "192.0.2.1"})
	if len(states) != 1 || states[0].Refused != 3 || states[0].Used != 2 || states[0].Room.IsZero() || states[0].Source != "quotas.client" {
		t.Errorf("%+v", states)
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	l := limiter(t, limits.Config{Tenant: quota(t, "messages", "minute", "1")})
	for range 5 {
		taken, r := l.Take([]limits.LimitSet{shop}, one)
		if r != nil {
			t.Fatal(r)
		}
		taken.Undo()
		taken.Undo()
	}
	if _, r := l.Take([]limits.LimitSet{shop}, one); r != nil {
		t.Fatal(r)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	l := limiter(t, limits.Config{
		Tenant: quota(t, "messages", "day", "5", "bytes", "day", "7"), Credential: quota(t, "messages", "day", "3"),
		Tenants: map[string]limits.Quota{"news": quota(t, "messages", "day", "9")},
	})
	for name, c := range map[string]struct {
		set  limits.LimitSet
		want string
	}{
		"default of tenants":  {shop, "5 quotas.tenant"},
		"tenant of the file":  {limits.LimitSet{Kind: limits.Tenant, Name: "news"}, "9 tenants[news].quota"},
		"credential":          {app, "3 quotas.credential"},
		"its own":             {limits.LimitSet{Kind: limits.Credential, Name: "b", Quota: quota(t, "messages", "day", "1"), Source: "credential b"}, "1 credential b"},
		"its own of all else": {limits.LimitSet{Kind: limits.Credential, Name: "c", Quota: quota(t, "bytes", "day", "1"), Source: "credential c"}, "3 credential c"},
		"none":                {limits.LimitSet{Kind: limits.Credential, Name: "d", Quota: quota(t, "messages", "day", "-1"), Source: "credential d"}, "0 "},
	} {
		if _, r := l.Take([]limits.LimitSet{c.set}, limits.Amount{Messages: 1}); r != nil {
			t.Fatal(name, r)
		}
		for _, st := range l.Explain(limits.Query{Kind: c.set.Kind, Of: true, Name: c.set.Name}) {
			if got := fmt.Sprintf("%d %s", st.Max, st.Source); st.Subject == limits.Messages && st.Span == limits.Day && got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
	}
}

func TestUniqueIsExactWhileFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limits.Config{Tenant: quota(t, "unique_recipients", "hour", "10")})
		take := func(names ...string) *limits.Refusal {
			a := limits.Amount{Messages: 1}
			for _, n := range names {
				a.Unique = append(a.Unique, limits.Hash(n, "x.test"))
			}
			_, r := l.Take([]limits.LimitSet{shop}, a)
			return r
		}
		for i := range 10 {
			for range 3 { // the same again costs nothing
				if r := take(strconv.Itoa(i)); r != nil {
					t.Fatal(r)
				}
			}
		}
		if r := take("3", "4", "5"); r != nil {
			t.Error("known recipients are refused:", r)
		}
		if r := take("10"); r == nil || r.Subject != limits.Unique || r.Used != 10 {
			t.Errorf("the eleventh: %v", r)
		}
		if r := take("0", "A", "a"); r == nil { // one more, in two spellings
			t.Error("the eleventh was taken")
		}
		time.Sleep(70 * time.Minute)
		if r := take("10"); r != nil {
			t.Error(r)
		}
	})
}

// TestUniqueIsNearWhenMany: a sketch is within five percent, and survives its parts.
func TestUniqueIsNearWhenMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limits.Config{Tenant: quota(t, "unique_recipients", "day", "100000000")})
		used := func() int64 {
			for _, st := range l.Explain(limits.Query{}) {
				if st.Subject == limits.Unique {
					return st.Used
				}
			}
			return 0
		}
		n := 0
		for _, goal := range []int{500, 1024, 1100, 5000, 20_000, 100_000} {
			for ; n < goal; n++ {
				l.Take([]limits.LimitSet{shop}, limits.Amount{Unique: []uint64{limits.Hash(strconv.Itoa(n), "x.test")}})
			}
			if got := used(); math.Abs(float64(got)/float64(goal)-1) > 0.05 {
				t.Errorf("%d are counted as %d", goal, got)
			}
			time.Sleep(time.Hour)
		}
		time.Sleep(29 * time.Hour)
		if got := used(); got != 0 {
			t.Errorf("a day later: %d", got)
		}
	})
}

// TestRestart: hours and days survive, minutes do not, and what is over goes from the store.
func TestRestart(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	open := func() *store.DB {
		db, err := store.Open(store.Options{Dir: filepath.Join("/", "store"), FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	c := limits.Config{
		Tenant: quota(t, "messages", "minute", "3", "messages", "hour", "5", "bytes", "day", "100000", "unique_recipients", "day", "3"),
		Client: quota(t, "messages", "day", "5"),
	}
	run := func(work func(l *limits.Limiter)) {
		db := open()
		defer db.Close()
		l, err := limits.New(limits.Options{Config: c, Store: db})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		work(l)
		l.Save(t.Context())
	}
	sets := []limits.LimitSet{shop, laptop}
	run(func(l *limits.Limiter) {
		for range 3 {
			if _, r := l.Take(sets, one); r != nil {
				t.Fatal(r)
			}
		}
		if r := l.Check(sets, one); r == nil || r.Span != limits.Minute {
			t.Errorf("%v", r)
		}
	})
	run(func(l *limits.Limiter) {
		for range 2 {
			if _, r := l.Take(sets, one); r != nil {
				t.Fatal(r)
			}
		}
		if r := l.Check(sets, one); r == nil || r.Span != limits.Hour || r.Used != 5 {
			t.Errorf("%v", r)
		}
		if r := l.Check([]limits.LimitSet{laptop}, one); r == nil || r.Used != 5 {
			t.Errorf("client: %v", r)
		}
		var unique, bytes int64
		for _, st := range l.Explain(limits.Query{}) {
			if st.Kind == limits.Tenant && st.Span == limits.Day {
				switch st.Subject {
				case limits.Unique:
					unique = st.Used
				case limits.Bytes:
					bytes = st.Used
				}
			}
		}
		if unique != 1 || bytes != 5000 {
			t.Errorf("%d recipients, %d octets", unique, bytes)
		}
	})
	db := open()
	defer db.Close()
	n := 0
	for range db.Scan(t.Context(), "limit/") {
		n++
	}
	if n != 2 {
		t.Errorf("%d keys", n)
	}
}

// TestMemoryIsBounded: a flood of addresses forgets the oldest, in memory and in the store.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	db, err := store.Open(store.Options{Dir: "/store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	l, err := limits.New(limits.Options{Config: limits.Config{Client: quota(t, "messages", "day", "1")}, Holders: 100, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		for i := range 100 {
			a := netip.AddrFrom16([16]byte{0x20, 1, byte(round), byte(i)})
			l.Take([]limits.LimitSet{{Kind: limits.Client, Name: limits.ClientName(a)}}, one)
		}
		l.Save(t.Context())
	}
	if n := len(l.Explain(limits.Query{})); n != 100 {
		t.Errorf("%d are remembered", n)
	}
	n := 0
	for range db.Scan(t.Context(), "limit/") {
		n++
	}
	if n != 100 {
		t.Errorf("%d keys", n)
	}
}

func TestClientName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := limits.ClientName(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b limits.Bandwidth
		start := time.Now()
		b.Spend(1 << 40)
		if !b.Wait(t.Context()) || time.Since(start) != 0 {
			t.Error("without a rate nobody waits")
		}
		b.Set(1000)
		for range 10 {
			if !b.Wait(t.Context()) {
				t.Fatal("refused")
			}
			b.Spend(5000)
		}
		if d := time.Since(start); d != 45*time.Second {
			t.Errorf("10 messages of 5 s each took %v", d)
		}
		b.Spend(100_000)
		if b.Wait(t.Context()) {
			t.Error("a wait above the most")
		}
		if rate, wait, held := b.State(); rate != 1000 || wait != 105*time.Second || held != 10 {
			t.Error(rate, wait, held)
		}
		b.Set(0)
		if !b.Wait(t.Context()) {
			t.Error("the limit is gone")
		}
	})
}

func BenchmarkTake(b *testing.B) {
	l := limiter(b, limits.Config{Tenant: quota(b, "messages", "day", "1000000000000", "recipients", "hour", "1000000000000")})
	sets := []limits.LimitSet{shop, app, laptop}
	b.ReportAllocs()
	for b.Loop() {
		if _, r := l.Take(sets, one); r != nil {
			b.Fatal(r)
		}
	}
}
