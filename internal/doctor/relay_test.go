package doctor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/doctor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers each line with what say returns; empty closes the connection.
type server struct {
	greeting string
	say      func(line string) string

	wg   sync.WaitGroup
	mu   sync.Mutex
	said []string
}

func (s *server) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.wg.Go(func() {
		defer theirs.Close()
		if s.greeting == "" {
			return
		}
		fmt.Fprint(theirs, s.greeting)
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			s.mu.Lock()
			s.said = append(s.said, lines.Text())
			s.mu.Unlock()
			answer := s.say(lines.Text())
			if answer == "" {
				return
			}
			fmt.Fprint(theirs, answer)
		}
	})
	return ours, nil
}

func (s *server) target() doctor.Target {
	return doctor.Target{Name: "t", Dial: s.dial, Hostname: "mx.test", Address: "2001:db8::1", Timeout: time.Second}
}

// TestRelayVerdicts: what each kind of server is taken for. Nothing is ever sent to any of them.
func TestRelayVerdicts(t *testing.T) {
	t.Parallel()
	yes := func(string) string { return "250 fine\r\n" }
	for name, c := range map[string]struct {
		s    *server
		open bool
		err  string
	}{
		"takes everything":   {s: &server{greeting: "220 x\r\n", say: yes}, open: true},
		"refuses everything": {s: &server{greeting: "220 x\r\n", say: func(string) string { return "550-no\r\n550 never\r\n" }}},
		"refuses by HELO name alone": {s: &server{greeting: "220 x\r\n", say: func(line string) string {
			if strings.HasPrefix(line, "RCPT") && !strings.Contains(line, "%") {
				return "550 no\r\n"
			}
			return "250 ok\r\n"
		}}, open: true},
		"closes at once":      {s: &server{}},
		"refuses the session": {s: &server{greeting: "554 no\r\n", say: yes}},
		"closes at the sender": {s: &server{greeting: "220 x\r\n", say: func(line string) string {
			return map[bool]string{true: "250 ok\r\n"}[strings.HasPrefix(line, "EHLO")]
		}}},
		"says nonsense":      {s: &server{greeting: "hello\r\n", say: yes}, err: "probe 1: the reply is not SMTP"},
		"never ends a reply": {s: &server{greeting: strings.Repeat("220-x\r\n", 200), say: yes}, err: "probe 1: the reply does not end"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := doctor.Relay(t.Context(), c.s.target())
			c.s.wg.Wait()
			if c.err != "" && (err == nil || err.Error() != c.err) || c.err == "" && err != nil {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if (len(r.Open) > 0) != c.open {
				t.Errorf("open: %+v", r.Open)
			}
			for _, line := range c.s.said {
				if line == "DATA" {
					t.Error("a message was begun")
				}
			}
		})
	}
}

// TestRelaySilence: a server that says nothing is an error, not a hang, and a context ends it.
func TestRelaySilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := doctor.Target{Name: "t", Hostname: "mx.test", Dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { theirs.Close() })
			return ours, nil
		}}
		begin := time.Now()
		if _, err := doctor.Relay(t.Context(), silent); err == nil || time.Since(begin) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := doctor.Relay(ctx, silent); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestProbes: ids are unique and every probe has something that must be refused.
func TestProbes(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, p := range doctor.Probes() {
		if seen[p.ID] || p.ID == "" || p.What == "" {
			t.Errorf("probe %q, %q", p.ID, p.What)
		}
		seen[p.ID] = true
	}
	for n := range 32 {
		if id := fmt.Sprint(n + 1); !seen[id] && !seen[id+"a"] && id != "28" { // 28 is an address to come from
			t.Errorf("probe %s is missing", id)
		}
	}
}

// TestWatch: a round at the start and one a day; problems come and go, and keep their begin.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Bool
		var rounds atomic.Int32
		s := &server{greeting: "220 x\r\n", say: func(string) string {
			if !closed.Load() {
				return "250 ok\r\n"
			}
			return "550 no\r\n"
		}}
		w, err := doctor.NewWatch(doctor.Options{Targets: func() []doctor.Target {
			rounds.Add(1)
			return []doctor.Target{s.target(), {Name: "gone", Hostname: "mx.test", Dial: func(context.Context) (net.Conn, error) {
				return nil, errors.New("no route")
			}}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		begin := time.Now()
		time.Sleep(time.Hour)
		list := w.Problems()
		if rounds.Load() != 1 || len(list) != 2 || !list[0].Open || list[0].Listener != "t" || list[1].Open ||
			!strings.HasSuffix(list[1].What, "no route") {
			t.Errorf("%d rounds: %+v", rounds.Load(), list)
		}
		time.Sleep(24 * time.Hour)
		if list := w.Problems(); rounds.Load() != 2 || len(list) != 2 || list[0].Since.Sub(begin) > time.Minute {
			t.Errorf("%d rounds: %+v", rounds.Load(), list)
		}
		closed.Store(true)
		if got := w.Now(t.Context()); len(got) != 2 || len(got[0].Report.Open) > 0 {
			t.Errorf("%+v", got)
		}
		if list := w.Problems(); len(list) != 1 || list[0].Listener != "gone" {
			t.Errorf("%+v", list)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.wg.Wait()
	})
	if _, err := doctor.NewWatch(doctor.Options{}); err == nil {
		t.Error("a watch without targets")
	}
}
