package submission_test

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// nowhere is a spool that keeps nothing.
type nowhere struct{}

func (nowhere) Accept(context.Context, *spool.Message, *smtp.Body) error { return nil }

// BenchmarkTransaction is the door's share of a 10 KB message with the header of an ordinary application.
func BenchmarkTransaction(b *testing.B) {
	text := "From: Shop <shop@app.test>\r\nTo: You <you@one.test>\r\nSubject: Your order\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n" +
		"Message-ID: <x@app.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\r\n", 256)
	for _, limited := range []bool{false, true} {
		name := "plain"
		var l *limits.Limiter
		if limited {
			name = "limited"
			var q limits.Quota
			q.Set("messages", "day", 1<<40)
			var err error
			if l, err = limits.New(limits.Options{Config: limits.Config{Tenant: q, Client: q}}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			door, err := submission.New(submission.Options{
				Hostname: "mx.test", Listener: "app", Spool: nowhere{}, IDs: message.NewIDs(rand.Reader), Limits: l,
				Policy: submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxAge: time.Hour},
			})
			if err != nil {
				b.Fatal(err)
			}
			s, _ := door.NewSession(b.Context(), &smtpserver.Peer{
				Session: "s", Remote: netip.MustParseAddrPort("127.0.0.1:4000"), Hello: "app.test", ESMTP: true,
			})
			b.ReportAllocs()
			for b.Loop() {
				env := &smtp.Envelope{From: smtp.Sender{Path: smtp.Path{Local: "shop", Domain: "app.test"}}}
				if r := s.Mail(b.Context(), &env.From); !r.IsZero() {
					b.Fatal(r)
				}
				rcpt := smtp.Recipient{Path: smtp.Path{Local: "you", Domain: "one.test"}}
				if r := s.Rcpt(b.Context(), env, &rcpt); !r.IsZero() {
					b.Fatal(r)
				}
				env.Recipients = append(env.Recipients, rcpt)
				body := smtp.BodyOf([]byte(text))
				if r := s.Data(b.Context(), env, body); !r.Positive() {
					b.Fatal(r)
				}
				body.Release()
			}
		})
	}
}
