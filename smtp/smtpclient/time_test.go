package smtpclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestK2Stall: a peer that says nothing more is left after the time RFC 5321, 4.5.3.2 gives to the phase, and not
// before.
func TestK2Stall(t *testing.T) {
	t.Parallel()
	big := "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2000)
	for _, tc := range []struct {
		at     smtptest.Point
		from   int
		body   string
		want   string
		after  time.Duration
		phase  string
		chunks bool
	}{
		{at: smtptest.AtBanner, phase: "greeting", after: 5 * time.Minute},
		{at: smtptest.AtEhlo, phase: "hello", after: 5 * time.Minute},
		{at: smtptest.AtMail, want: "2 * unsent mail", after: 5 * time.Minute},
		{at: smtptest.AtRcpt, want: "2 * unsent rcpt", after: 5 * time.Minute},
		{at: smtptest.AtRcpt, from: 2, want: "2 * unsent rcpt", after: 5 * time.Minute},
		{at: smtptest.AtData, want: "2 * unsent data", after: 2 * time.Minute},
		// What a peer does not read, its socket still takes; then the write has 3 minutes, and an early refusal a
		// moment more.
		{at: smtptest.AtBody, body: big, want: "2 * unsent body", after: 3*time.Minute + 5*time.Second},
		{at: smtptest.AtBody, body: big, want: "2 * unsent body", after: 3*time.Minute + 5*time.Second, chunks: true},
		{at: smtptest.AtFinal, want: "2 * unknown final", after: 10 * time.Minute},
		{at: smtptest.AtFinal, want: "2 * unknown final", after: 10 * time.Minute, chunks: true},
		{at: smtptest.AtQuit, want: "2 * delivered 250 final", after: 0},
	} {
		t.Run(fmt.Sprintf("%s %d chunks %v", tc.at, tc.from, tc.chunks), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := piped(t, smtptest.Script{Rules: []smtptest.Rule{{At: tc.at, From: tc.from, Stall: true}}})
				start := time.Now()
				c, err := p.try(smtpclient.Options{NoChunking: !tc.chunks})
				if tc.phase != "" {
					var e *smtpclient.Error
					if !errors.As(err, &e) || e.Phase.String() != tc.phase || !errors.Is(err, os.ErrDeadlineExceeded) || !e.Temporary() {
						t.Errorf("error %v", err)
					}
					if d := time.Since(start); d != tc.after {
						t.Errorf("after %s, want %s", d, tc.after)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if tc.body == "" {
					tc.body = letter
				}
				tx := message("x", 2, tc.body)
				err = c.Send(t.Context(), tx)
				if got := statuses(tx); got != tc.want {
					t.Errorf("got %s, error %v", got, err)
				}
				if tc.after > 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				if d := time.Since(start); d != tc.after {
					t.Errorf("after %s, want %s", d, tc.after)
				}
				if tc.at == smtptest.AtQuit {
					if err := c.Quit(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
						t.Errorf("%v after %s", err, time.Since(start))
					}
				}
				p.judge(t, tx)
			})
		})
	}
}

// TestK2Slow: replies within their time are waited for, each with a time of its own.
func TestK2Slow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := func(at smtptest.Point, d time.Duration) smtptest.Rule {
			return smtptest.Rule{At: at, Delay: smtptest.Duration(d - time.Second)}
		}
		p := piped(t, smtptest.Script{Rules: []smtptest.Rule{
			late(smtptest.AtBanner, 5*time.Minute), late(smtptest.AtEhlo, 5*time.Minute), late(smtptest.AtMail, 5*time.Minute),
			late(smtptest.AtRcpt, 5*time.Minute), late(smtptest.AtData, 2*time.Minute), late(smtptest.AtFinal, 10*time.Minute),
		}})
		start := time.Now()
		c := p.open(t, smtpclient.Options{NoChunking: true})
		tx := message("x", 3, letter)
		if err := c.Send(t.Context(), tx); err != nil || statuses(tx) != "3 * delivered 250 final" {
			t.Errorf("%s %v", statuses(tx), err)
		}
		if d, want := time.Since(start), 42*time.Minute-8*time.Second; d != want {
			t.Errorf("took %s, want %s", d, want)
		}
		r := tx.Result
		if d := r.Done.Sub(r.DataStarted); d != 10*time.Minute-time.Second {
			t.Errorf("%s from data to the end", d)
		}
		p.judge(t, tx)
	})
}

// TestDrip: a reply that comes octet by octet has no more time than one that comes at once.
func TestDrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := smtptest.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := server.Write([]byte("2")); err != nil {
					return
				}
				time.Sleep(9 * time.Second)
			}
		}()
		c := smtpclient.New(client, smtpclient.Options{})
		start := time.Now()
		err := c.Start(t.Context())
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 5*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		<-done
	})
}

// TestCancel: the end of a context interrupts a session at any point before the end of the data, and never after.
func TestCancel(t *testing.T) {
	t.Parallel()
	big := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2000)
	for _, tc := range []struct {
		at     smtptest.Point
		want   string
		err    bool
		within time.Duration
	}{
		{smtptest.AtMail, "unsent mail", true, time.Minute},
		{smtptest.AtRcpt, "unsent rcpt", true, time.Minute},
		{smtptest.AtData, "unsent data", true, time.Minute},
		{smtptest.AtBody, "unsent body", true, time.Minute},
		{smtptest.AtFinal, "delivered 250 final", false, 9 * time.Minute},
	} {
		t.Run(string(tc.at), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rule := smtptest.Rule{At: tc.at, Delay: smtptest.Duration(9 * time.Minute)}
				p := piped(t, smtptest.Script{Rules: []smtptest.Rule{rule}})
				c := p.open(t, smtpclient.Options{NoChunking: true})
				cause := errors.New("the operator wants it")
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				time.AfterFunc(time.Minute, func() { cancel(cause) })
				start := time.Now()
				tx := message("x", 1, letter)
				if tc.at == smtptest.AtBody {
					tx = message("x", 1, big)
				}
				err := c.Send(ctx, tx)
				if d := time.Since(start); d != tc.within {
					t.Errorf("took %s", d)
				}
				if got := statuses(tx); got != tc.want || errors.Is(err, cause) != tc.err || (err != nil) != tc.err {
					t.Errorf("%s, error %v", got, err)
				}
				p.judge(t, tx)
			})
		})
	}
}

// TestCancelledBefore: a context that has ended leaves a session as it is, and a later one does not inherit its end.
func TestCancelledBefore(t *testing.T) {
	t.Parallel()
	p := loopback(t, smtptest.Script{})
	c := p.open(t, smtpclient.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	first, second, third := message("a", 1, letter), message("b", 1, letter), message("c", 1, letter)
	if err := c.Send(ctx, first); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Send(ctx, second); !errors.Is(err, context.Canceled) || statuses(second) != "unsent mail" || !c.Reusable() {
		t.Errorf("%s %v", statuses(second), err)
	}
	if err := c.Send(t.Context(), third); err != nil {
		t.Error(err)
	}
	if err := c.Quit(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nc, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := smtpclient.New(nc, smtpclient.Options{}).Start(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.judge(t, first, second, third)
}

// TestEarlyRefusal: a peer that refuses within the data and leaves has refused, if its words arrive.
func TestEarlyRefusal(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat(append(bytes.Repeat([]byte("x"), 998), '\r', '\n'), 20_000)
	for _, way := range ways[1:] {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := piped(t, smtptest.Script{Rules: []smtptest.Rule{
				{At: smtptest.AtBody, Octets: 100_000, Reply: "552 5.3.4 enough", Drop: smtptest.DropRST},
			}})
			c := p.open(t, way.o)
			tx := message("x", 2, string(body))
			err := c.Send(t.Context(), tx)
			if got := statuses(tx); got != "2 * refused 552 body" || err == nil {
				t.Errorf("%s, error %v", got, err)
			}
			p.judge(t, tx)
		})
	}
}
