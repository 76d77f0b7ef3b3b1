package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
)

const (
	reportBatch   = 256 // messages that are looked up at a time
	reportWriters = 8   // reports that are accepted at once, so that they share syncs
)

// remind says that something may have to be reported.
func (s *Scheduler) remind() { notify(s.reports) }

// report tells senders what became of their mail until ctx ends. What must be told is kept by the spool, so that a
// crash at any moment neither loses a report nor makes two of one.
func (s *Scheduler) report(ctx context.Context) {
	timer := time.NewTicker(s.o.Poll)
	defer timer.Stop()
	for {
		for ctx.Err() == nil && s.reportBatch(ctx) {
		}
		select {
		case <-ctx.Done():
			return
		case <-s.reports:
		case <-timer.C:
		}
	}
}

// reportBatch makes some reports and reports whether there may be more to be made now.
func (s *Scheduler) reportBatch(ctx context.Context) bool {
	list, err := s.o.Spool.Unreported(time.Now(), reportBatch)
	if err != nil {
		s.complain(ctx, "what is to be reported cannot be read", err)
		return false
	}
	next := make(chan spool.Report)
	var failed atomic.Bool
	var writers sync.WaitGroup
	for range min(reportWriters, len(list)) {
		writers.Go(func() {
			for r := range next {
				if ctx.Err() != nil {
					continue // the next start tells
				}
				if err := s.tell(ctx, r); err != nil {
					s.complain(ctx, "a report cannot be made", err, "message", r.Message.ID)
					failed.Store(true)
				}
			}
		})
	}
	for _, r := range list {
		next <- r
	}
	close(next)
	writers.Wait()
	return len(list) == reportBatch && !failed.Load()
}

// tell reports failures and successes of one message, in one report each.
func (s *Scheduler) tell(ctx context.Context, r spool.Report) error {
	var failures, successes []*spool.Entry
	for _, e := range r.Entries {
		if e.Last.Outcome == spool.Delivered {
			successes = append(successes, e)
			continue
		}
		failures = append(failures, e)
	}
	if len(failures) > 0 {
		if err := s.send(ctx, r.Message, failures, dsn.Failed); err != nil {
			return err
		}
	}
	if len(successes) == 0 {
		return nil
	}
	return s.send(ctx, r.Message, successes, dsn.Relayed) // to a host that does not report itself (RFC 3461, 5.2.1)
}

// send makes one report and has the spool accept it. A sender that cannot be told, for it has no proper address, is
// not told.
func (s *Scheduler) send(ctx context.Context, about *spool.Message, entries []*spool.Entry, action dsn.Action) error {
	indices := make([]int, len(entries))
	for i, e := range entries {
		indices[i] = e.Index
	}
	accept := s.o.Spool.AcceptReport
	if action == dsn.Delayed {
		accept = s.o.Spool.AcceptDelayNotice
	}
	original, full, err := s.original(ctx, about, entries, action)
	if err != nil {
		return err
	}
	m, body, err := s.compose(about, entries, action, original, full)
	if err != nil {
		s.log.Error("a sender cannot be told", "message", about.ID, "report", action, "error", err)
		return fresh(accept(ctx, nil, nil, about, indices))
	}
	defer body.Release()
	s.sign(ctx, m, body)
	if ctx.Err() != nil {
		return nil // the message it is about may not have been read to its end; the next start tells
	}
	if err := fresh(accept(ctx, m, body, about, indices)); err != nil {
		return err
	}
	s.metrics.reports.WithLabelValues(action.String()).Inc()
	s.log.Info("sender told", "message", about.ID, "report", m.ID, "action", action, "entries", len(entries))
	return nil
}

// sign signs a report. One that cannot be signed goes without: a sender who is not told is worse off than one who is told by
// a message that a filter may doubt.
func (s *Scheduler) sign(ctx context.Context, m *spool.Message, body *smtp.Body) {
	if s.o.Sign == nil {
		return
	}
	fields, err := s.o.Sign(ctx, nil, body.AppendPieces(nil), strings.ToLower(s.o.Hostname), "")
	if err != nil {
		s.complain(ctx, "a report goes unsigned", err, "message", m.ID)
		return
	}
	if len(fields) > 0 {
		body.Prepend(fields)
		m.Size = body.Size()
	}
}

// fresh drops the error that says that entries have changed since they were looked at: they come again if there is
// something to tell.
func fresh(err error) error {
	if errors.Is(err, spool.ErrStale) {
		return nil
	}
	return err
}

// compose makes the report to the sender of m about entries, which all have the same message. The report is a message
// of its own, with the null reverse-path, so that nobody ever reports on it (RFC 5321, 4.5.5 and 6.1; RFC 3461, 6.1).
// original is what it returns of the message, all of it if full.
func (s *Scheduler) compose(about *spool.Message, entries []*spool.Entry, action dsn.Action, original []byte, full bool) (
	*spool.Message, *smtp.Body, error) {
	now := time.Now()
	domain, err := smtp.DomainToASCII(about.From.Domain)
	if err != nil {
		return nil, nil, fmt.Errorf("the sender's domain %q: %w", about.From.Domain, err)
	}
	id := s.o.IDs.New(now)
	r := dsn.Report{
		Action: action, ReportingMTA: s.o.Hostname, EnvelopeID: about.From.EnvelopeID, Arrival: about.Received,
		From: "MAILER-DAEMON@" + s.o.Hostname, To: about.From.Path.String(),
		MessageID: id.String() + "@" + s.o.Hostname, Now: now, UTF8: about.From.UTF8,
		Original: original, OriginalIsFull: full,
	}
	for _, e := range entries[:min(len(entries), dsn.MaxRecipients)] {
		r.Recipients = append(r.Recipients, status(e, action))
	}
	p, err := r.Compose()
	if err != nil {
		return nil, nil, err
	}
	body := smtp.BodyOf(p)
	life := about.Expires.Sub(about.Received)
	if about.Expires.IsZero() {
		life = defaultLife
	}
	m := &spool.Message{
		ID: id, Tenant: about.Tenant, Stream: about.Stream, Received: now, Expires: now.Add(life),
		Protocol: "report", Hello: s.o.Hostname,
		Size: body.Size(), EightBit: body.EightBit, DotLine: body.DotLine, HeaderUTF8: utf8Header(p),
		Recipients: []smtp.Recipient{{Path: about.From.Path}},
		Queues:     []spool.QueueKey{{Tenant: about.Tenant, Domain: domain}},
		Report:     true,
		HeaderFrom: r.From, MessageID: r.MessageID, Subject: "delivery report about " + about.ID.String(),
	}
	if body.EightBit {
		m.From.Body = smtp.Body8BitMIME
	}
	m.From.UTF8 = m.HeaderUTF8 || about.From.Path.NeedsUTF8()
	m.From.RequireTLS = about.From.RequireTLS // RFC 8689, 5
	return m, body, nil
}

// defaultLife is how long delivery of a report is tried if the message it is about never expires.
const defaultLife = 72 * time.Hour

// status says what a report tells of one entry.
func status(e *spool.Entry, action dsn.Action) dsn.RecipientStatus {
	r, rcpt := &e.Last, e.Recipient()
	st := dsn.RecipientStatus{
		Action: action, Original: rcpt.Original, Final: rcpt.Path, Status: r.Reply.Enhanced, Diagnostic: r.Reply,
		Explanation: r.Explanation, LastAttempt: e.LastAttempt,
	}
	if !r.Reply.IsZero() {
		st.RemoteMTA = r.Host
	}
	if st.Explanation == "" && r.Reply.IsZero() {
		st.Explanation = r.Reason.Explain()
	}
	if code, ok := reasonStatus(r.Reason); ok {
		st.Status = code
	}
	if action == dsn.Delayed {
		st.WillRetryUntil = e.Message.Expires
	}
	return st
}

// reasonStatus returns the code of RFC 3463 that says what no remote said, or said only of the last attempt.
func reasonStatus(r event.Reason) (smtp.EnhancedCode, bool) {
	code := func(class, subject, detail uint16) (smtp.EnhancedCode, bool) {
		return smtp.EnhancedCode{Class: class, Subject: subject, Detail: detail}, true
	}
	switch r {
	case event.Aged:
		return code(4, 4, 7) // delivery time expired
	case event.DNSNXDomain:
		return code(5, 1, 2)
	case event.DNSNullMX:
		return code(5, 1, 10) // RFC 7505, 4.2
	case event.DNSNoAddress, event.DNSMalformed, event.NoUsableAddress:
		return code(5, 4, 4)
	case event.DNSTemporary:
		return code(4, 4, 3)
	case event.ConnectionRefused, event.ConnectionTimeout, event.NetworkUnreachable, event.ConnectionFailed:
		return code(4, 4, 1)
	case event.ConnectionLost, event.ReplyTimeout:
		return code(4, 4, 2)
	case event.Loop:
		return code(5, 4, 6)
	case event.TLSRequired, event.TLSDowngrade:
		return code(4, 7, 10) // encryption needed (RFC 8689, 4.2.1)
	case event.TLSUntrusted, event.TLSPolicy:
		return code(4, 7, 5)
	case event.RequireTLSUnsupported:
		return code(5, 7, 30) // RFC 8689, 7
	case event.LoginFailed:
		return code(4, 3, 5)
	case event.Operator, event.Rule:
		return code(5, 7, 0)
	}
	return smtp.EnhancedCode{}, false
}

// readingPatience is how long a report waits for a message that cannot be read for now, say for want of descriptors.
const readingPatience = time.Hour

// original returns the begin of the message, of which a report carries the header, or with RET=FULL all of a small
// one. Only reports of failure return more than headers (RFC 3461, 4.3). A message that is damaged, or could not be read
// for long, is reported without it: the sender must know. The error says that reading failed for now.
func (s *Scheduler) original(ctx context.Context, m *spool.Message, entries []*spool.Entry, action dsn.Action) (
	p []byte, full bool, err error) {
	body, err := s.o.Spool.Body(ctx, m)
	if err == nil {
		defer body.Release()
		// What required TLS comes back without its body (RFC 8689, 5).
		full = action == dsn.Failed && m.From.Return == smtp.ReturnFull && !m.From.RequireTLS && body.Size() <= dsn.MaxOriginal
		p, err = io.ReadAll(io.LimitReader(body.Reader(), dsn.MaxOriginal))
	}
	switch {
	case err == nil:
		return p, full, nil
	case ctx.Err() != nil, !errors.Is(err, spool.ErrUnreadable) && time.Since(entries[0].LastAttempt) < readingPatience:
		return nil, false, fmt.Errorf("reading the message it is about: %w", err)
	}
	s.log.Error("a report goes without the message it is about", "message", m.ID, "error", err)
	return nil, false, nil
}

func utf8Header(p []byte) bool {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		end = len(p)
	}
	for _, c := range p[:end] {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
