package smtpserver

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// ended waits for the server to end the connection and returns what it said and how long it took.
func ended(c *client) (said string, after time.Duration) {
	start := time.Now()
	p, _ := io.ReadAll(c.r)
	return string(p), time.Since(start)
}

func within(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s after %v, want %v to %v", what, got, low, high)
	}
}

// inBubble runs a test in fake time.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func TestCommandTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, nil))
		c.hello()
		time.Sleep(4*time.Minute + 59*time.Second)
		c.do("NOOP => 250")
		said, after := ended(c)
		within(t, "timeout", after, 5*time.Minute, 5*time.Minute*9/8)
		if !strings.HasPrefix(said, "421 4.4.2") {
			t.Errorf("said %q", said)
		}
	})
}

// TestSlowCommand drips a command at one octet in nine seconds: the time is for the whole line, not for each octet.
func TestSlowCommand(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, nil))
		c.drip(strings.Repeat("x", 1000), 9*time.Second)
		said, after := ended(c)
		within(t, "timeout", after, 5*time.Minute, 6*time.Minute)
		if !strings.HasPrefix(said, "421 4.4.2") {
			t.Errorf("said %q", said)
		}
	})
}

// drip sends one octet after the other until the server has enough.
func (c *client) drip(text string, pause time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range len(text) {
			if _, err := c.conn.Write([]byte(text[i : i+1])); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}()
	c.t.Cleanup(func() { <-done })
}

// TestSlowData drips a message at one octet in nine seconds, over DATA and over BDAT.
func TestSlowData(t *testing.T) {
	for _, how := range []string{"DATA", "BDAT 100000 LAST"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := &backend{}
				c := dial(t, newTestServer(t, b, nil))
				c.hello()
				c.envelope()
				c.send(how + "\r\n")
				if how == "DATA" {
					c.want("354")
				}
				c.drip(strings.Repeat("x", 10000), 9*time.Second)
				said, after := ended(c)
				within(t, "end", after, 5*time.Minute, 6*time.Minute)
				if !strings.HasPrefix(said, "421 4.4.2") || len(b.messages()) != 0 {
					t.Errorf("said %q, %d messages", said, len(b.messages()))
				}
			})
		})
	}
}

// TestBurstThenSlowData: what came fast at first does not pay for dripping later.
func TestBurstThenSlowData(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, nil))
		c.hello()
		c.envelope()
		c.do("DATA => 354")
		c.send("\r\n" + lines(50000, 70))
		c.drip(strings.Repeat("x", 10000), 9*time.Second)
		_, after := ended(c)
		within(t, "end", after, 10*time.Minute, 12*time.Minute)
	})
}

// TestSteadyData is slow but fast enough, for much longer than the span in which its rate is measured.
func TestSteadyData(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &backend{}
		c := dial(t, newTestServer(t, b, nil))
		c.hello()
		c.envelope()
		c.do("DATA => 354")
		c.send("\r\n")
		start := time.Now()
		for time.Since(start) < 40*time.Minute {
			c.send(lines(20, 70))
			time.Sleep(10 * time.Second)
		}
		c.send(".\r\n")
		c.want("250")
		c.quit()
	})
}

func TestSessionAge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, nil))
		c.hello()
		start := time.Now()
		for time.Since(start) < 59*time.Minute {
			c.do("NOOP => 250")
			time.Sleep(4 * time.Minute)
		}
		said, _ := ended(c)
		within(t, "end", time.Since(start), time.Hour, time.Hour)
		if !strings.HasPrefix(said, "421 4.3.2") {
			t.Errorf("said %q", said)
		}
	})
}

// TestNeverReads is P-5: a client that sends commands and never reads replies is cut when a write has waited too long,
// and costs one buffer until then.
func TestNeverReads(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, func(o *Options) { o.Limits.IdleCommands = 1 << 20; o.Logger = nil }))
		start := time.Now()
		group := []byte(strings.Repeat("NOOP\r\n", 1000))
		n := 0
		for {
			k, err := c.conn.Write(group)
			if n += k; err != nil {
				break
			}
		}
		<-c.done
		within(t, "end", time.Since(start), 2*time.Minute, 3*time.Minute)
		if n > 64<<10 {
			t.Errorf("%d octets were taken of a client that reads nothing", n)
		}
	})
}

// TestGreetingDelay is P-1.
func TestGreetingDelay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &backend{}
		s := newTestServer(t, b, func(o *Options) { o.GreetingDelay = 2 * time.Second })
		patient := dialSilent(t, s)
		start := time.Now()
		patient.want("220")
		within(t, "greeting", time.Since(start), 2*time.Second, 2*time.Second)
		patient.hello()
		time.Sleep(4 * time.Minute)
		patient.quit()

		early := dialSilent(t, s)
		early.send("EHLO x\r\n")
		early.want("554 5.5.0")
		if rest := early.wantEnd(); rest != "" {
			t.Errorf("then %q", rest)
		}
	})
}

// TestCrowded: when most places are taken, waits are short.
func TestCrowded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, func(o *Options) { o.Limits.Sessions = 4 })
		clients := []*client{dial(t, s), dial(t, s), dial(t, s), dial(t, s)}
		start := time.Now()
		full := dialSilent(t, s)
		full.want("421 4.3.2")
		full.wantEnd()
		time.Sleep(time.Second)
		clients[0].do("NOOP => 250") // from here on it is in a hurry
		said, _ := ended(clients[0])
		within(t, "end", time.Since(start), 31*time.Second, 45*time.Second)
		if !strings.HasPrefix(said, "421 4.4.2") {
			t.Errorf("said %q", said)
		}
		clients[1].do("NOOP => 250")
		time.Sleep(4 * time.Minute)
		clients[1].do("NOOP => 250")
	})
}

// TestSkipRate: octets that are thrown away are read no faster than is harmless.
func TestSkipRate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := dial(t, newTestServer(t, &backend{}, func(o *Options) { o.Limits.MessageBytes = 1 << 20 }))
		c.hello()
		c.envelope()
		c.do("DATA => 354")
		start := time.Now()
		piece := lines(1<<14, 62)
		for range 64 {
			c.send(piece)
		}
		c.send(".\r\n")
		c.want("552")
		within(t, "64 MiB", time.Since(start), 3*time.Second, 5*time.Second)
		c.quit()
	})
}

// TestDrain: Shutdown lets a transaction finish and tells 421 to who waits between commands.
func TestDrain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &backend{}
		s := newTestServer(t, b, nil)
		idle, fresh, busy, chunky := dial(t, s), dial(t, s), dial(t, s), dial(t, s)
		idle.hello()
		for _, c := range []*client{busy, chunky} {
			c.hello()
			c.envelope()
		}
		busy.do("DATA => 354")
		busy.send("x\r\n")
		chunky.send("BDAT 3\r\nx\r\n")
		chunky.want("250")
		synctest.Wait()
		result := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { result <- s.Shutdown(ctx) }()
		for _, c := range []*client{idle, fresh} {
			said, after := ended(c)
			if !strings.HasPrefix(said, "421 4.3.2") || after != 0 {
				t.Errorf("said %q after %v", said, after)
			}
		}
		time.Sleep(30 * time.Second)
		busy.send("y\r\n.\r\n")
		busy.want("250", "421 4.3.2")
		busy.wantEnd()
		chunky.send("BDAT 3 LAST\r\ny\r\n")
		chunky.want("250", "421 4.3.2")
		chunky.wantEnd()
		if err := <-result; err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if len(b.messages()) != 2 || s.Sessions() != 0 {
			t.Errorf("%d messages, %d sessions", len(b.messages()), s.Sessions())
		}
		late := dialSilent(t, s)
		if said, _ := ended(late); said != "" {
			t.Errorf("a closed server says %q", said)
		}
	})
}

// TestDrainCuts what does not finish in time; nothing of it is kept. The backend's call is told by its context.
func TestDrainCuts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		told := false
		b := &backend{onData: func(ctx context.Context, _ *smtp.Envelope, _ *smtp.Body) smtp.Reply {
			<-ctx.Done()
			told = true
			return smtp.Reply{Code: 451, Text: "no"}
		}}
		s := newTestServer(t, b, nil)
		stalled, stuck := dial(t, s), dial(t, s)
		for _, c := range []*client{stalled, stuck} {
			c.hello()
			c.envelope()
			c.do("DATA => 354")
		}
		stalled.send("x\r\n")
		stuck.send("x\r\n.\r\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); err == nil {
			t.Error("shutdown claims that all finished")
		}
		within(t, "shutdown", time.Since(start), time.Minute, time.Minute)
		for _, c := range []*client{stalled, stuck} {
			if said, _ := ended(c); said != "" {
				t.Errorf("said %q", said)
			}
		}
		if len(b.messages()) != 0 || !told || s.Sessions() != 0 || held(s) != 0 {
			t.Errorf("%d messages, told %v, %d sessions", len(b.messages()), told, s.Sessions())
		}
	})
}

// TestServeConnContext: the context of ServeConn drains, then cuts.
func TestServeConnContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newTestServer(t, &backend{}, func(o *Options) { o.DrainTimeout = 10 * time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); s.ServeConn(ctx, far) }()
		c := &client{t: t, conn: near, r: newReader(near), done: done}
		c.want("220")
		c.hello()
		c.envelope()
		cancel()
		start := time.Now()
		<-done
		within(t, "end", time.Since(start), 10*time.Second, 10*time.Second)
		_ = near.Close()
	})
}
