package submission

import (
	"context"

	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/smtp"
)

// holders fills in whose limits hold for the session now.
func (s *session) holders() {
	if s.identity != nil {
		s.sets = append(s.sets[:0], s.identity.Limits()...)
	} else {
		s.sets = append(s.sets[:0], limits.LimitSet{Kind: limits.Tenant, Name: s.tenant})
	}
	s.sets = append(s.sets, limits.LimitSet{Kind: limits.Client, Name: s.clientName})
}

// admit asks the limits before a message is sent in vain, and waits for the bandwidth.
func (s *session) admit(ctx context.Context, size int64) smtp.Reply {
	if !s.door.opts.Bandwidth.Wait(ctx) {
		return replyBandwidth
	}
	if b := s.door.opts.Tenants(s.tenant); b != nil && !b.Wait(ctx) {
		return replyBandwidth
	}
	if s.door.opts.Limits == nil {
		return smtp.Reply{}
	}
	s.holders()
	return s.refusal(s.door.opts.Limits.Check(s.sets, limits.Amount{Messages: 1, Recipients: 1, Bytes: max(size, 1)}), 451)
}

// admitRcpt asks whether one more recipient fits: the client can send the others their message and come back.
func (s *session) admitRcpt(before int, path *smtp.Path, domain string) smtp.Reply {
	if s.door.opts.Limits == nil {
		return smtp.Reply{}
	}
	s.hashes = append(s.hashes, limits.Hash(path.Local, domain))
	r := s.door.opts.Limits.Check(s.sets, limits.Amount{Recipients: int64(before) + 1, Unique: s.hashes})
	if r != nil {
		s.hashes = s.hashes[:len(s.hashes)-1]
	}
	return s.refusal(r, 452)
}

// take counts the message.
func (s *session) take(recipients int, size int64) (limits.Taken, smtp.Reply) {
	if s.door.opts.Limits == nil {
		return limits.Taken{}, smtp.Reply{}
	}
	taken, r := s.door.opts.Limits.Take(s.sets, limits.Amount{
		Messages: 1, Recipients: int64(recipients), Bytes: size, Unique: s.hashes,
	})
	return taken, s.refusal(r, 451)
}

// spend counts octets that have come, accepted or not.
func (s *session) spend(size int64) {
	s.door.opts.Bandwidth.Spend(size)
	if b := s.door.opts.Tenants(s.tenant); b != nil {
		b.Spend(size)
	}
}

// refusal is the reply to a limit that is used up. Its words come from closed sets; the numbers go to the log.
func (s *session) refusal(r *limits.Refusal, code int) smtp.Reply {
	if r == nil {
		return smtp.Reply{}
	}
	s.door.opts.Logger.Info("limit reached", "session", s.peer.Session, "tenant", s.tenant, "client", s.client, "error", r)
	what := "the " + r.Subject.String() + " of this " + r.Kind.String() + " in one " + r.Span.String()
	if r.Permanent {
		return smtp.Reply{Code: 550, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 1},
			Text: "Limit reached: " + what + " are used up"}
	}
	return smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 7, Detail: 1},
		Text: "Limit reached: " + what + " are used up, try again later"}
}
