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
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

func say(code int, subject, detail uint16, text string) smtp.Reply {
	return smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: uint16(code / 100), Subject: subject, Detail: detail}, Text: text}
}

// The refusals. Their texts are fixed: what a peer is told never depends on what it sent.
var (
	replyRelayDenied = say(550, 7, 1, "Relaying denied: this address is not in trusted_networks of this listener")
	replyNotHere     = say(550, 7, 1, "Relaying denied: log in, or send only to domains that this server takes mail for")
	replyRouted      = say(550, 7, 1, "Relaying denied: no routing in local parts")
	replyLoginFirst  = say(530, 7, 0, "Authentication required")
	replyRevoked     = say(421, 7, 0, "This login is no longer valid")
	replyAuthFault   = say(454, 7, 0, "Temporary authentication failure")

	replyAuthorUnclear = say(550, 7, 1, "Sender refused: a field of authors is not a plain list of addresses")
	replyAuthorTwice   = say(550, 7, 1, "Sender refused: the message has more than one From or Sender field")
	replyHeaderSize    = say(552, 3, 4, "The header is too large or has too many fields")
	replyNotAField     = say(554, 6, 0, "The header has a line that is no field")

	replyBandwidth = say(451, 7, 1, "Limit reached: too many octets in a short time, try again later")
	replyBadDomain = say(501, 1, 2, "Bad destination domain")
	replyLoop      = say(554, 4, 6, "Too many hops: the message seems to run in a loop")
	replyTryLater  = say(451, 3, 0, "Could not store the message now, try again later")
	replyNoRoom    = say(452, 3, 1, "Insufficient system storage, try again later")
)

// session is one client at one door.
type session struct {
	door       *Door
	peer       *smtpserver.Peer
	client     string
	clientName string // of its limits

	identity *auth.Identity // who has logged in; nil: nobody
	pending  *auth.Identity // of the exchange under way

	// Of the transaction.
	standing standing
	// forReports: a stranger named a recipient that reports come to.
	forReports bool
	tenant     string
	queues     []spool.QueueKey // of the recipients taken, in order
	hashes     []uint64         // of the recipients taken, for limits
	sets       []limits.LimitSet
}

func (s *session) Mail(ctx context.Context, from *smtp.Sender) smtp.Reply {
	p := s.door.policy.Load()
	reply := s.begin(ctx, p, from)
	if reply.IsZero() && s.door.full() {
		reply = replyNoRoom
	}
	if !reply.IsZero() {
		s.refuse(from.Path.String(), "", reply)
	}
	return reply
}

func (s *session) begin(ctx context.Context, p *Policy, from *smtp.Sender) smtp.Reply {
	from.Auth = "" // nobody is trusted to vouch for another (RFC 4954, 5)
	s.tenant, s.hashes, s.forReports = p.Tenant, s.hashes[:0], false
	if s.identity != nil {
		s.tenant = s.identity.Tenant
	}
	var refusal smtp.Reply
	if s.standing, refusal = s.stand(p); !refusal.IsZero() {
		return refusal
	}
	if s.checksSenders(p) {
		if r := s.checkSender(ctx, fieldMail, from.Path); !r.IsZero() {
			return r
		}
	}
	return s.admit(ctx, from.Size)
}

func (s *session) Rcpt(_ context.Context, env *smtp.Envelope, rcpt *smtp.Recipient) smtp.Reply {
	if rcpt.Domain == "" { // <Postmaster>, which every server must take (RFC 5321, 4.5.1)
		rcpt.Domain = s.door.opts.Hostname
	}
	domain := s.queueDomain(rcpt.Domain)
	reply := replyBadDomain
	if domain != "" {
		reply = smtp.Reply{}
		if s.standing == stranger {
			reply = s.takesFrom(s.door.policy.Load(), env, rcpt.Local, domain)
		}
		if reply.IsZero() {
			reply = s.admitRcpt(len(env.Recipients), &rcpt.Path, domain)
		}
	}
	if !reply.IsZero() {
		s.refuse(env.From.Path.String(), rcpt.Path.String(), reply)
		return reply
	}
	s.queues = append(s.queues, spool.QueueKey{Tenant: s.tenant, Domain: domain})
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
	queues := s.queues
	s.queues = nil
	s.spend(body.Size())
	reply, taken := s.accept(ctx, env, body, queues)
	if reply == smtpserver.HangUp() {
		return reply // neither taken nor refused
	}
	if !reply.Positive() {
		taken.Undo()
		s.refuse(env.From.Path.String(), "", reply)
	}
	return reply
}

// accept checks the message as a whole, puts its header in order and hands it to the spool.
func (s *session) accept(
	ctx context.Context, env *smtp.Envelope, body *smtp.Body, queues []spool.QueueKey,
) (_ smtp.Reply, taken limits.Taken) {
	policy := s.door.policy.Load()
	if s.identity != nil && s.identity.Valid() != nil {
		return replyRevoked, taken
	}
	if s.tooLarge(policy, body.Size()) {
		return replyReportSize, taken
	}
	// A message whose header is too large or no header travels as it is: repair is not ours (RFC 5321, 6.4). But senders that
	// are checked are checked in a header that has one meaning.
	var room [4][]byte
	header, joinErr := message.JoinHeader(body.AppendPieces(room[:0]))
	head, parseErr := message.ParseHeader(header)
	edit := s.edits(policy)
	h := scan(head, &edit)
	if h.hops > policy.MaxHops {
		return replyLoop, taken
	}
	if s.standing == stranger && (joinErr != nil || errors.Is(parseErr, message.ErrHeaderTooLarge)) {
		return replyHeaderSize, taken // what it claims to be from us could not be taken out
	}
	if s.checksSenders(policy) {
		if joinErr != nil || parseErr != nil {
			return replyNotAField, taken
		}
		r := s.checkAuthors(head, &h, func(f senderField, p smtp.Path) smtp.Reply { return s.checkSender(ctx, f, p) })
		if !r.IsZero() {
			return r, taken
		}
	}
	taken, refusal := s.take(len(env.Recipients), body.Size())
	if !refusal.IsZero() {
		return refusal, taken
	}
	found, refusal := s.verify(ctx, policy, env, body, head, parseErr)
	if !refusal.IsZero() {
		return refusal, taken
	}
	now := time.Now()
	id := s.door.opts.IDs.New(now)
	m := &spool.Message{
		ID:         id,
		Tenant:     s.tenant,
		Stream:     policy.Stream,
		Received:   now,
		Expires:    now.Add(policy.MaxAge),
		Session:    s.peer.Session,
		Listener:   s.door.opts.Listener,
		Client:     s.client,
		Hello:      s.peer.Hello,
		Protocol:   s.peer.Protocol(env.From.UTF8),
		From:       env.From,
		EightBit:   body.EightBit,
		DotLine:    body.DotLine,
		HeaderUTF8: body.EightBit && smtp.HasEightBit(header),
		// REQUIRETLS overrides the field (RFC 8689, 3).
		TLSOptional: h.tlsOptional && !env.From.RequireTLS,
		Recipients:  env.Recipients,
		Queues:      queues,
		HeaderFrom:  peopleText(h.from),
		Subject:     peopleText(h.subject),
		MessageID:   peopleText(h.messageID),
	}
	trace := appendReceived(make([]byte, 0, s.door.traceRoom), s.peer, s.door.opts.Hostname, id, env, now)
	var added []byte
	if edit.submission && parseErr == nil {
		added = s.complete(m, &h, now)
	}
	if h.dropped > 0 && joinErr == nil {
		fields := len(head.Bytes())
		kept := without(head, &edit, fields-h.dropped)
		body.DropFront(fields)
		body.Prepend(kept)
	}
	added = s.mark(ctx, policy, m, added, body, found)
	trace, signed, refusal := s.seal(ctx, trace, added, body, head)
	if !refusal.IsZero() {
		return refusal, taken
	}
	trace = append(trace, added...)
	body.Prepend(trace)
	m.Size = body.Size()
	if policy.DelayNotice > 0 && (policy.DelayAlways || asksForDelay(env.Recipients)) {
		m.DelayNotice = now.Add(policy.DelayNotice)
	}
	if err := s.door.opts.Spool.Accept(ctx, m, body); err != nil {
		if errors.Is(err, journal.ErrFull) { // which the journal has told
			return replyNoRoom, taken
		}
		s.door.opts.Logger.ErrorContext(ctx, "message not accepted",
			"session", s.peer.Session, "message", id.String(), "error", err)
		if errors.Is(err, spool.ErrUncertain) {
			// What is refused is never sent, and this may be.
			return smtpserver.HangUp(), taken
		}
		return replyTryLater, taken
	}
	if signed != "" {
		s.door.opts.Signer.Sent(signed, m.Tenant, m.MessageID, len(m.Recipients))
	}
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{Class: 2}, Text: "queued as " + id.String()}, taken
}

// edits says what is removed from the header of this client's mail.
func (s *session) edits(p *Policy) own {
	switch {
	case s.standing == stranger:
		return own{authserv: s.door.authserv}
	case p.Headers == HeadersSubmission, p.Headers == HeadersAuto && s.standing == known:
		return own{submission: true, authserv: s.door.authserv}
	}
	return own{}
}

// complete returns the fields that a message must have and its writer left out (RFC 6409, 8.2 and 8.3).
func (s *session) complete(m *spool.Message, h *heading, now time.Time) []byte {
	if h.hasDate && h.messageID != nil {
		return nil
	}
	added := make([]byte, 0, 128)
	if !h.hasDate {
		added = append(message.AppendDate(append(added, "Date: "...), now), "\r\n"...)
	}
	if h.messageID == nil {
		begin := len(added) + len("Message-ID: ")
		added = append(m.ID.AppendTo(append(added, "Message-ID: <"...)), '@')
		added = append(append(added, s.door.opts.Hostname...), '>')
		m.MessageID = string(added[begin:])
		added = append(added, "\r\n"...)
	}
	return added
}

func asksForDelay(list []smtp.Recipient) bool {
	return slices.ContainsFunc(list, func(r smtp.Recipient) bool { return r.Notify.Delay() })
}

func (s *session) Reset() { s.queues, s.hashes = nil, s.hashes[:0] }

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
	if s.door.opts.Own(s.peer.Remote) || s.peer.Via.IsValid() && s.door.opts.Own(s.peer.Via) {
		return
	}
	s.door.opts.Refused(&event.Event{
		Time: time.Now(), Type: event.Refused, Session: s.peer.Session, Listener: s.door.opts.Listener, Tenant: s.tenant,
		Client: s.client, Reason: reasonOf(r), Sender: from, Recipient: to,
		Reply: event.Reply{Code: r.Code, Enhanced: r.Enhanced.String(), Text: r.Text},
	})
}

// maxPeopleText bounds a header value that is kept for people to recognise the message.
const maxPeopleText = 200

func peopleText(v []byte) string {
	return strings.ToValidUTF8(string(v[:min(len(v), maxPeopleText)]), "?")
}

// reasonOf says in the words of the event log what a refusal of ours means. The subject of the enhanced code tells them apart
// (RFC 3463, 3), and for security the words that the text begins with.
func reasonOf(r smtp.Reply) event.Reason {
	c := r.Enhanced
	switch {
	case c == replyLoop.Enhanced:
		return event.Loop
	case r == replyTryLater, r == replyNoRoom:
		return event.StorageUnavailable
	case strings.HasPrefix(r.Text, "Not signed"):
		return event.NotSigned
	case c.Subject == 7 && strings.HasPrefix(r.Text, "Limit reached"):
		return event.LimitExceeded
	case c.Subject == 7 && strings.HasPrefix(r.Text, "Sender refused"):
		return event.InvalidSender
	case c.Class == 5 && c.Subject == 7 && strings.HasPrefix(r.Text, "Rejected"):
		return event.Unauthenticated
	case c.Class == 4 && strings.HasPrefix(r.Text, "Could not check now"):
		return event.DNSTemporary
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
