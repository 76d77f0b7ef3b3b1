package queue

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
)

// refusing delivers to recipients named ok, refuses others with 550, and delivers reports.
func refusing(_ context.Context, j *Job) Verdict {
	v := all(j, spool.Result{Outcome: spool.Delivered, Reason: event.OK, Host: "mx1.example.com"})
	for i, e := range j.Entries {
		if to := e.Recipient().Local; to != "ok" && to != "sender" {
			v.Attempt.Results[i] = spool.Result{
				Outcome: spool.Bounced, Reason: event.RemoteRefused, Host: "mx1.example.com",
				Reply: smtp.Reply{Code: 550, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 1, Detail: 1}, Text: "no such user"},
			}
		}
	}
	return v
}

func to(local string, notify smtp.Notify) smtp.Recipient {
	return smtp.Recipient{Path: smtp.Path{Local: local, Domain: "a.example"}, Notify: notify,
		Original: smtp.OriginalRecipient{Type: "rfc822", Address: local + "@old.example"}}
}

// letter makes a message with these recipients, all at a.example.
func letter(b *bench, rcpts ...smtp.Recipient) *spool.Message {
	domains := make([]string, len(rcpts))
	for i, r := range rcpts {
		domains[i] = r.Domain
	}
	m := b.message("t", domains...)
	m.Recipients = rcpts
	return m
}

// A report that the stop overtakes is made at the next start, and not now without the message it is about.
func TestNoReportIsMadeInHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, refusing)
		b.slow.Store(true)
		b.accept(letter(b, to("bad", 0)))
		synctest.Wait()
		b.stop()
		if len(b.reports()) != 0 {
			t.Errorf("told while stopping: %s", b.reports())
		}
		b.table.mu.Lock()
		defer b.table.mu.Unlock()
		if len(b.unreported) != 1 {
			t.Errorf("%d messages wait for a report, want 1", len(b.unreported))
		}
	})
}

// A report waits while the message it is about cannot be read, for want of descriptors say, and goes without it if that will
// not get better or lasts.
func TestReportWaitsForItsMessage(t *testing.T) {
	for name, c := range map[string]struct {
		why  error
		wait time.Duration
		told int
	}{
		"for now":  {syscall.EMFILE, 10 * time.Minute, 0},
		"for long": {syscall.EMFILE, 2 * time.Hour, 1},
		"for good": {spool.ErrUnreadable, time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, Options{}, refusing)
				defer b.stop()
				b.busy.Store(&c.why)
				b.accept(letter(b, to("bad", 0)))
				time.Sleep(c.wait)
				synctest.Wait()
				if n := len(b.reports()); n != c.told {
					t.Fatalf("%d reports", n)
				}
				b.busy.Store(nil)
				time.Sleep(time.Minute)
				synctest.Wait()
				list := b.reports()
				if len(list) != 1 || strings.Contains(list[0], "Subject: test") == (c.told == 1) {
					t.Errorf("%d reports: %s", len(list), list)
				}
			})
		})
	}
}

func TestFailuresOfAMessageShareOneReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, refusing)
		defer b.stop()
		m := letter(b, to("ok", 0), to("bad1", 0), to("bad2", smtp.NotifyFailure), to("quiet", smtp.NotifyNever),
			to("slow", smtp.NotifySuccess))
		m.From.EnvelopeID = "env-17"
		b.accept(m)
		synctest.Wait()
		if b.left() != 0 || len(b.reports()) != 1 {
			t.Fatalf("%d left, %d reports", b.left(), len(b.reports()))
		}
		text := b.reports()[0]
		r, err := dsn.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Recipients) != 2 || r.EnvelopeID != "env-17" {
			t.Errorf("report: %+v", r)
		}
		for _, want := range []string{
			"To: <sender@example.org>", "bad1@a.example", "bad2@a.example", "bad1@old.example",
			"550 5.1.1 no such user", "mx1.example.com", "Action: failed",
			"Status: 5.1.1", "Subject: test", "MAILER-DAEMON@mta.example.org",
		} {
			if !strings.Contains(strings.ReplaceAll(text, "To: sender@example.org", "To: <sender@example.org>"), want) {
				t.Errorf("the report lacks %q:\n%s", want, text)
			}
		}
		for _, not := range []string{"quiet@", "ok@a.example", "\r\nhello\r\n"} {
			if strings.Contains(text, not) {
				t.Errorf("the report has %q:\n%s", not, text)
			}
		}
	})
}

func TestReportHasTheNullSenderAndIsNeverReportedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports []*spool.Message
		b := start(t, Options{}, func(ctx context.Context, j *Job) Verdict {
			v := refusing(ctx, j)
			if j.Message.Report {
				reports = append(reports, j.Message)
				v.Attempt.Results[0] = spool.Result{
					Outcome: spool.Bounced, Reason: event.RemoteRefused, Reply: smtp.Reply{Code: 550},
				}
			}
			return v
		})
		defer b.stop()
		b.accept(letter(b, to("bad", 0)))
		m := letter(b, to("bad", 0))
		m.From = smtp.Sender{}
		b.accept(m)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(reports) != 1 || b.left() != 0 {
			t.Fatalf("%d reports, %d left", len(reports), b.left())
		}
		r := reports[0]
		if !r.From.IsNull() || r.Recipients[0].String() != "sender@example.org" || r.Tenant != "t" ||
			r.Queues[0].Domain != "example.org" || r.Expires.Sub(r.Received) != 72*time.Hour || r.Size == 0 || r.ID == m.ID {
			t.Errorf("report: %+v", r)
		}
	})
}

func TestReturnFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, refusing)
		defer b.stop()
		m := letter(b, to("bad", 0))
		m.From.Return = smtp.ReturnFull
		b.accept(m)
		synctest.Wait()
		if len(b.reports()) != 1 || !strings.Contains(b.reports()[0], "\r\nhello\r\n") {
			t.Errorf("the message is not returned: %s", b.reports())
		}
	})
}

// RFC 8689, 5: what required TLS is reported with REQUIRETLS, and without its body whatever RET says.
func TestReportOfRequireTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []smtp.Sender
		b := start(t, Options{}, func(ctx context.Context, j *Job) Verdict {
			if j.Message.Report {
				sent = append(sent, j.Message.From)
			}
			return refusing(ctx, j)
		})
		defer b.stop()
		m := letter(b, to("bad", 0))
		m.From.Return, m.From.RequireTLS = smtp.ReturnFull, true
		b.accept(m)
		synctest.Wait()
		if len(b.reports()) != 1 || strings.Contains(b.reports()[0], "\r\nhello\r\n") {
			t.Errorf("want one report without the body: %s", b.reports())
		}
		if len(sent) != 1 || !sent[0].RequireTLS || !sent[0].IsNull() {
			t.Errorf("the report is sent as %+v", sent)
		}
	})
}

// RFC 3461, 5.2.1: success is reported as relayed when it was asked for and the next host will not report.
func TestSuccessIsReportedAsRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(ctx context.Context, j *Job) Verdict {
			v := refusing(ctx, j)
			for i, e := range j.Entries {
				v.Attempt.Results[i].RemoteDSN = e.Recipient().Notify == smtp.NotifySuccess|smtp.NotifyDelay
			}
			return v
		})
		defer b.stop()
		b.accept(letter(b, to("ok", smtp.NotifySuccess)))
		b.accept(letter(b, to("ok", smtp.NotifySuccess|smtp.NotifyDelay)))
		b.accept(letter(b, to("ok", smtp.NotifyFailure)))
		b.accept(letter(b, to("ok", 0)))
		synctest.Wait()
		if len(b.reports()) != 1 || !strings.Contains(b.reports()[0], "Action: relayed") {
			t.Errorf("%d reports: %s", len(b.reports()), b.reports())
		}
	})
}

func TestDelayNotices(t *testing.T) {
	for _, c := range []struct {
		policy DelayPolicy
		notify smtp.Notify
		told   bool
	}{
		{DelayAsked, 0, false},
		{DelayAsked, smtp.NotifyDelay | smtp.NotifyFailure, true},
		{DelayAlways, 0, true},
		{DelayAlways, smtp.NotifyFailure, false},
		{DelayAlways, smtp.NotifyNever, false},
		{DelayNever, smtp.NotifyDelay, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, Options{Settings: Settings{DelayNotices: c.policy}}, func(_ context.Context, j *Job) Verdict {
				if j.Message.Report {
					return delivered(j)
				}
				return greylisted(j)
			})
			defer b.stop()
			m := letter(b, to("ann", c.notify), to("ben", c.notify))
			m.DelayNotice = m.Received.Add(4 * time.Hour)
			b.accept(m)
			time.Sleep(4*time.Hour - time.Second)
			synctest.Wait()
			if len(b.reports()) != 0 {
				t.Error("told too early")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if told := len(b.reports()) == 1; told != c.told || len(b.reports()) > 1 {
				t.Errorf("%+v: %d notices", c, len(b.reports()))
			}
			for _, want := range []string{"Action: delayed", "Will-Retry-Until:"} {
				if c.told && !strings.Contains(b.reports()[0], want) {
					t.Errorf("the notice lacks %q: %s", want, b.reports()[0])
				}
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if len(b.reports()) > 1 {
				t.Errorf("%d notices after a day", len(b.reports()))
			}
		})
	}
}

// An entry is final within 60 s of its end, whatever holds it up.
func TestExpiryIsPunctual(t *testing.T) {
	const entries = 50
	for _, c := range []struct {
		name string
		o    Options
		f    func(ctx context.Context, j *Job) Verdict
		text string // in the report
	}{
		{"its own schedule", Options{}, func(_ context.Context, j *Job) Verdict {
			return greylisted(j)
		}, "451 4.7.1 Greylisted"},
		{"a suspended destination", Options{}, func(_ context.Context, j *Job) Verdict {
			return unreachable(j)
		}, "connection refused by mx1"},
		{"a trouble of this server", Options{}, func(_ context.Context, j *Job) Verdict {
			return all(j, spool.Result{})
		}, "iven up after 3 days"},
		{"a long line", narrow(), func(_ context.Context, j *Job) Verdict {
			time.Sleep(2 * time.Hour)
			return greylisted(j)
		}, "iven up after 3 days"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, c.o, func(ctx context.Context, j *Job) Verdict {
					if j.Message.Report {
						return delivered(j)
					}
					return c.f(ctx, j)
				})
				defer b.stop()
				for range entries {
					b.accept(b.message("t", "a.example"))
				}
				time.Sleep(72*time.Hour - time.Second)
				synctest.Wait()
				if n := b.outcomes()[spool.Expired]; n > 0 {
					t.Errorf("%d expired too early", n)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				flying := 0
				for _, e := range b.copies(spool.Filter{}) {
					if e.State != spool.Claimed {
						t.Fatalf("%v is %v, due %v", e.ID(), e.State, e.Due)
					}
					flying++
				}
				if flying > 2 { // what is in flight is final after the attempt
					t.Errorf("%d are still there", flying)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if b.left() != 0 || b.outcomes()[spool.Expired] != entries || len(b.reports()) != entries {
					t.Errorf("%d left, outcomes %v, %d reports", b.left(), b.outcomes(), len(b.reports()))
				}
				text := strings.Join(strings.Fields(b.reports()[0]), " ")
				if !strings.Contains(text, c.text) || !strings.Contains(text, "Status: 4.4.7") {
					t.Errorf("the report lacks %q or 4.4.7:\n%s", c.text, b.reports()[0])
				}
			})
		})
	}
}

func TestHeldEntriesDoNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, func(_ context.Context, j *Job) Verdict { return greylisted(j) })
		defer b.stop()
		b.accept(b.message("t", "a.example"))
		synctest.Wait()
		if _, err := b.s.Hold(t.Context(), Selection{Domain: "a.example"}, "audit"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Hour)
		synctest.Wait()
		if b.left() != 1 {
			t.Fatal("it expired while it was held")
		}
		if _, err := b.s.Release(t.Context(), Selection{Domain: "a.example"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.outcomes()[spool.Expired] != 1 {
			t.Errorf("outcomes %v, want it expired after the release", b.outcomes())
		}
	})
}

func TestSenderWithoutAProperAddressIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{}, refusing)
		defer b.stop()
		m := letter(b, to("bad", 0))
		m.From.Path = smtp.Path{Local: "x", Domain: "not a domain"}
		b.accept(m)
		synctest.Wait()
		if len(b.reports()) != 0 || b.untold != 1 || len(b.unreported) != 0 {
			t.Errorf("%d told, %d given up, %d open", len(b.reports()), b.untold, len(b.unreported))
		}
	})
}
