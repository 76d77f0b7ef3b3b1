package tlsfloor

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hour = time.Hour
	day  = 24 * hour
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func openStore(t *testing.T) store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, s store.Store, o Options) *Floors {
	t.Helper()
	o.Store = s
	f, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// learn gives a host its floor, by sessions on three days that end with the one of start.
func learn(f *Floors, host string) {
	for d := range 3 {
		f.worked(host, start.Add(time.Duration(d-2)*day))
		f.worked(host, start.Add(time.Duration(d-2)*day+hour))
	}
}

func TestLearning(t *testing.T) {
	t.Parallel()
	f := open(t, openStore(t), Options{})
	f.worked("mx", start.Add(-2*day))
	f.worked("mx", start.Add(-2*day+hour)) // the same day
	f.worked("mx", start.Add(-day))
	if f.missing("mx", "gone", start.Add(-hour)) {
		t.Error("two days make a floor, want three")
	}
	if len(f.List(true)) != 0 {
		t.Error("a host that was without TLS is not learnt anew")
	}
	learn(f, "mx")
	if got := f.List(false); len(got) != 1 || got[0].Host != "mx" || got[0].Days != 3 {
		t.Fatalf("floors: %+v", got)
	}
	if f.missing("other", "never seen", start) {
		t.Error("a host that is not known has a floor")
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	var gone []Floor
	f := open(t, openStore(t), Options{GivenUp: func(f Floor) { gone = append(gone, f) }})
	learn(f, "mx")
	at := start.Add(2 * hour)
	for _, step := range []struct {
		after time.Duration
		wait  bool
	}{{0, true}, {hour, true}, {4*hour - time.Second, true}, {4 * hour, false}, {5 * hour, false}} {
		if got := f.missing("mx", "STARTTLS is gone", at.Add(step.after)); got != step.wait {
			t.Errorf("%v after TLS was gone: wait is %v", step.after, got)
		}
	}
	if len(gone) != 1 || gone[0].Why != "STARTTLS is gone" || !gone[0].Missing.Equal(at) {
		t.Errorf("told of %+v, want one floor that was given up", gone)
	}
	if len(f.List(true)) != 0 {
		t.Error("a floor that was given up is still there")
	}

	t.Run("back in time", func(t *testing.T) {
		learn(f, "back")
		f.missing("back", "gone", at)
		f.worked("back", at.Add(hour))
		if !f.missing("back", "gone", at.Add(5*hour)) {
			t.Error("the hold does not begin anew after TLS was back")
		}
	})
	t.Run("not looked at for long", func(t *testing.T) {
		learn(f, "seldom")
		f.missing("seldom", "gone", at)
		if !f.missing("seldom", "gone", at.Add(10*day)) {
			t.Error("one look long ago and one now are taken for TLS missing all the time between")
		}
	})
	t.Run("forever", func(t *testing.T) {
		f.SetSettings(Settings{Forever: true})
		learn(f, "forever")
		for d := range 20 {
			if !f.missing("forever", "gone", at.Add(time.Duration(d)*hour)) {
				t.Errorf("given up after %d hours", d)
			}
		}
	})
	t.Run("off", func(t *testing.T) {
		learn(f, "off")
		f.SetSettings(Settings{Off: true})
		if f.missing("off", "gone", at) {
			t.Error("waits although floors are off")
		}
	})
}

func TestKept(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	f := open(t, s, Options{})
	learn(f, "a")
	learn(f, "b")
	f.missing("b", "gone", start.Add(hour))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := f.Run(ctx); err != nil { // writes at its end
		t.Fatal(err)
	}
	again := open(t, s, Options{})
	if diff := cmp.Diff(f.List(true), again.List(true)); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if !again.missing("b", "gone", start.Add(2*hour)) || again.missing("b", "gone", start.Add(6*hour)) {
		t.Error("a restart begins the hold anew")
	}
	got, err := again.Reset(t.Context(), "a")
	if err != nil || len(got) != 1 || got[0].Host != "a" {
		t.Errorf("reset: %+v, %v", got, err)
	}
	if got, err := again.Reset(t.Context(), "nobody"); err != nil || len(got) != 0 {
		t.Errorf("reset of a host that is not known: %+v, %v", got, err)
	}
	if last := open(t, s, Options{}).List(true); len(last) != 0 {
		t.Errorf("the store still has %+v", last)
	}
}

func TestForgets(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	f := open(t, s, Options{Max: 2, Registerer: prometheus.NewRegistry()})
	for i := range 5 {
		learn(f, fmt.Sprint("mx", i))
	}
	if n := len(f.List(true)); n != 2 {
		t.Errorf("%d hosts are remembered, want 2 at most", n)
	}
	if floors, missing := f.counts(); floors != 2 || missing != 0 {
		t.Errorf("%d floors, %d missing", floors, missing)
	}
	f.forget(start.Add(29 * day))
	if n := len(f.List(true)); n != 2 {
		t.Errorf("%d hosts after 29 days", n)
	}
	f.forget(start.Add(31 * day))
	if n := len(f.List(true)); n != 0 {
		t.Errorf("%d hosts after 31 days", n)
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	b := new(store.Batch)
	b.Put(prefix+"mx", []byte("{"))
	b.Put(prefix+"other", []byte(`{"host":"mx","days":3}`))
	if _, err := s.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	f := open(t, s, Options{})
	if len(f.List(true)) != 0 {
		t.Errorf("read %+v", f.List(true))
	}
	if err := f.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	for kv, err := range s.Scan(t.Context(), prefix) {
		t.Errorf("still there: %s, %v", kv.Key, err)
	}
}
