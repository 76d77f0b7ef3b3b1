package submission

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// The refusals. Their texts are fixed: what a peer is told never depends on what it sent.
var (
	replyRelayDenied = smtp.Reply{Code: 550, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 1},
		Text: "Relaying denied: this address is not in trusted_networks of this listener"}
	replyBadDomain = smtp.Reply{Code: 501, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 1, Detail: 2},
		Text: "Bad destination domain"}
	replyLoop = smtp.Reply{Code: 554, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 4, Detail: 6},
		Text: "Too many hops: the message seems to run in a loop"}
	replyTryLater = smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 3, Detail: 0},
		Text: "Could not store the message now, try again later"}
	replyNoRoom = smtp.Reply{Code: 452, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 3, Detail: 1},
		Text: "Insufficient system storage, try again later"}
)

// session is one client at one door.
type session struct {
	door   *Door
	peer   *smtpserver.Peer
	client string
	queues []spool.QueueKey // of the recipients taken in this transaction, in order
}

func (s *session) Mail(_ context.Context, from *smtp.Sender) smtp.Reply {
	if !s.door.policy.Load().trusts(s.peer.Remote.Addr()) {
		s.refuse(from.Path.String(), "", replyRelayDenied)
		return replyRelayDenied
	}
	return smtp.Reply{}
}

func (s *session) Rcpt(_ context.Context, env *smtp.Envelope, rcpt *smtp.Recipient) smtp.Reply {
	if rcpt.Domain == "" { // <Postmaster>, which every server must take (RFC 5321, 4.5.1)
		rcpt.Domain = s.door.opts.Hostname
	}
	domain := s.queueDomain(rcpt.Domain)
	if domain == "" {
		s.refuse(env.From.Path.String(), rcpt.Path.String(), replyBadDomain)
		return replyBadDomain
	}
	s.queues = append(s.queues, spool.QueueKey{Tenant: s.door.policy.Load().Tenant, Domain: domain})
	return smtp.Reply{}
}

// queueDomain returns the name of the queue, empty if the domain can't be one. The last recipient's is used again, since
// most transactions name one domain.
func (s *session) queueDomain(domain string) string {
	if n := len(s.queues); n > 0 && s.queues[n-1].Domain == domain {
		return domain
	}
	ascii, err := smtp.DomainToASCII(domain)
	if err != nil {
		return ""
	}
	return ascii
}

func (s *session) Data(ctx context.Context, env *smtp.Envelope, body *smtp.Body) smtp.Reply {
	policy := s.door.policy.Load()
	queues := s.queues
	s.queues = nil
	// A message whose header is too large or no header travels as it is: repair is not ours (RFC 5321, 6.4).
	var room [4][]byte
	header, _ := message.JoinHeader(body.AppendPieces(room[:0]))
	head, _ := message.ParseHeader(header)
	if head.Count("Received") > policy.MaxHops {
		s.refuse(env.From.Path.String(), "", replyLoop)
		return replyLoop
	}
	now := time.Now()
	id := s.door.opts.IDs.New(now)
	body.Prepend(appendReceived(make([]byte, 0, 320), s.peer, s.door.opts.Hostname, id, env, now))
	m := &spool.Message{
		ID:         id,
		Tenant:     policy.Tenant,
		Stream:     policy.Stream,
		Received:   now,
		Expires:    now.Add(policy.MaxAge),
		Session:    s.peer.Session,
		Listener:   s.door.opts.Listener,
		Client:     s.client,
		Hello:      s.peer.Hello,
		Protocol:   s.peer.Protocol(env.From.UTF8),
		From:       env.From,
		Size:       body.Size(),
		EightBit:   body.EightBit,
		DotLine:    body.DotLine,
		HeaderUTF8: body.EightBit && smtp.HasEightBit(header),
		Recipients: env.Recipients,
		Queues:     queues,
		HeaderFrom: peopleText(head, "From"),
		Subject:    peopleText(head, "Subject"),
		MessageID:  peopleText(head, "Message-ID"),
	}
	if policy.DelayNotice > 0 && (policy.DelayAlways || asksForDelay(env.Recipients)) {
		m.DelayNotice = now.Add(policy.DelayNotice)
	}
	if err := s.door.opts.Spool.Accept(ctx, m, body); err != nil {
		s.door.opts.Logger.ErrorContext(ctx, "message not accepted",
			"session", s.peer.Session, "message", id.String(), "error", err)
		reply := replyTryLater
		if errors.Is(err, journal.ErrFull) {
			reply = replyNoRoom
		}
		s.refuse(env.From.Path.String(), "", reply)
		return reply
	}
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{Class: 2}, Text: "queued as " + id.String()}
}

func asksForDelay(list []smtp.Recipient) bool {
	return slices.ContainsFunc(list, func(r smtp.Recipient) bool { return r.Notify.Delay() })
}

func (s *session) Reset() { s.queues = nil }

func (s *session) Close() {}

// Refused tells what the engine refused by itself.
func (s *session) Refused(env *smtp.Envelope, r smtp.Reply) {
	to := ""
	if len(env.Recipients) == 1 {
		to = env.Recipients[0].Path.String()
	}
	s.refuse(env.From.Path.String(), to, r)
}

// refuse records a refusal for the operator.
func (s *session) refuse(from, to string, r smtp.Reply) {
	s.door.opts.Refused(&event.Event{
		Time: time.Now(), Type: event.Refused, Session: s.peer.Session, Listener: s.door.opts.Listener,
		Client: s.client, Reason: reasonOf(r), Sender: from, Recipient: to,
		Reply: event.Reply{Code: r.Code, Enhanced: r.Enhanced.String(), Text: r.Text},
	})
}

// maxPeopleText bounds a header value that is kept for people to recognise the message.
const maxPeopleText = 200

func peopleText(h message.Header, name string) string {
	v, ok := h.Get(name)
	if !ok {
		return ""
	}
	return strings.ToValidUTF8(string(v[:min(len(v), maxPeopleText)]), "?")
}

// reasonOf says in the words of the event log what a refusal of ours means. The subject of the enhanced code tells them apart
// (RFC 3463, 3).
func reasonOf(r smtp.Reply) event.Reason {
	c := r.Enhanced
	switch {
	case c == replyLoop.Enhanced:
		return event.Loop
	case r == replyTryLater, r == replyNoRoom:
		return event.StorageUnavailable
	case c.Subject == 7:
		return event.RelayDenied
	case c.Subject == 1 && c.Detail >= 7:
		return event.InvalidSender
	case c.Subject == 1:
		return event.InvalidRecipient
	case c.Subject == 6:
		return event.InvalidMessage
	case c.Subject == 3, c == smtp.EnhancedCode{Class: 4, Subject: 5, Detail: 3}:
		return event.LimitExceeded
	}
	return event.InvalidMessage
}
