package submission

import (
	"context"
	"log/slog"
	"strings"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// verify finds out who a stranger's message is from; nil: nobody wants to know. The zero reply takes it.
func (s *session) verify(
	ctx context.Context, p *Policy, env *smtp.Envelope, body *smtp.Body, head message.Header, bad error,
) (*inbound.Findings, smtp.Reply) {
	c := s.door.opts.Inbound
	if s.standing != stranger || c == nil || p.Verify == inbound.Off {
		return nil, smtp.Reply{}
	}
	var room [6][]byte
	f := c.Check(ctx, &inbound.Question{
		Client: s.peer.Remote.Addr(), Hello: s.peer.Hello, From: env.From.Path, Authors: Authors(head, bad),
		Pieces: body.AppendPieces(room[:0]),
	})
	reply, decision := c.Decide(p.Verify, f)
	s.door.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "mail from outside checked", slog.String("session", s.peer.Session),
		slog.String("client", s.client), slog.String("sender", env.From.Path.String()), slog.String("author", f.Author),
		slog.String("auth", f.String()), slog.String("sealer", f.Sealer), slog.String("decision", string(decision)))
	return f, reply
}

// mark appends what was found to the fields that are put before the message, and the seal, which is of what is passed on. The
// body has lost by then what does not travel.
func (s *session) mark(
	ctx context.Context, p *Policy, m *spool.Message, added []byte, body *smtp.Body, f *inbound.Findings,
) []byte {
	if f == nil {
		return added
	}
	c := s.door.opts.Inbound
	m.Auth = f.String()
	failed := func(what string, err error) {
		s.door.opts.Logger.ErrorContext(ctx, what, "session", s.peer.Session, "message", m.ID.String(), "error", err)
	}
	marked := added
	if p.Verify >= inbound.Mark {
		var err error
		if marked, err = f.Append(added, s.door.opts.Hostname); err != nil {
			failed("findings not written", err)
		}
	}
	var room [6][]byte
	sealed, err := c.Seal(marked, body.AppendPieces(room[:0]), f)
	if err != nil {
		failed("message not sealed", err)
	}
	return sealed
}

// Authors finds the domains of a message's authors as all its readers see them (RFC 9989, 5.3.1). What stands in From and is no
// address, such as "MAILER-DAEMON", is no author's domain and no doubt either. bad is
// the error that the header was read with.
func Authors(head message.Header, bad error) inbound.Authors {
	if bad != nil || head.Count("From") != 1 {
		return inbound.Authors{Unclear: true}
	}
	value, _ := head.Get("From")
	var a inbound.Authors
	err := eachMailbox(string(value), func(p smtp.Path) error {
		domain, err := smtp.DomainToASCII(p.Domain)
		if err != nil || domain == "" || domain[0] == '[' {
			return errAuthor
		}
		domain = strings.TrimSuffix(domain, ".")
		for _, d := range a.Domains {
			if d == domain {
				return nil
			}
		}
		a.Domains = append(a.Domains, domain)
		return nil
	})
	if err != nil {
		return inbound.Authors{Unclear: strings.ContainsRune(string(value), '@') || len(value) == 0}
	}
	return a
}
