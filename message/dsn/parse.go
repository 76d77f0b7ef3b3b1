package dsn

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Bounds on what is read of a report.
const (
	maxParts  = 16
	maxStatus = 4 << 20 // octets of the second part
)

// ErrNotReport says that a message is not a delivery status notification.
var ErrNotReport = errors.New("dsn: not a delivery status notification")

// Parse reads a notification that any server composed. It is lenient: fields that are missing or broken stay zero, but
// there must be a status part with at least one recipient, or the error wraps [ErrNotReport]. Action is that of the
// first recipient, and each recipient has its own. All strings are cleaned as [Report.Compose] cleans them. Explanation
// holds a diagnostic that is not an SMTP reply.
func Parse(p []byte) (*Report, error) {
	header, err := message.ParseHeader(p)
	if errors.Is(err, message.ErrHeaderTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrNotReport, err)
	}
	media, params, err := mime.ParseMediaType(unfolded(header, "Content-Type"))
	if err != nil || media != "multipart/report" || params["boundary"] == "" {
		return nil, fmt.Errorf("%w: its type is %q", ErrNotReport, clean(media, 64, false))
	}
	r := &Report{
		From:      firstMailbox(unfolded(header, "From")),
		To:        firstMailbox(unfolded(header, "To")),
		MessageID: strings.Trim(clean(unfolded(header, "Message-ID"), 500, true), "<>"),
		Now:       date(unfolded(header, "Date")),
	}
	parts := multipart.NewReader(bytes.NewReader(p[header.Len():]), params["boundary"])
	for range maxParts {
		part, err := parts.NextRawPart()
		if err != nil {
			break // what came before the fault counts
		}
		r.readPart(part)
	}
	if len(r.Recipients) == 0 {
		return nil, fmt.Errorf("%w: no recipient is reported", ErrNotReport)
	}
	r.Action = r.Recipients[0].Action
	return r, nil
}

func (r *Report) readPart(part *multipart.Part) {
	media, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
	if err != nil {
		return
	}
	switch media {
	case "message/delivery-status", "message/global-delivery-status":
		r.UTF8 = r.UTF8 || media == "message/global-delivery-status"
		r.readStatus(content(part, maxStatus))
	case "text/rfc822-headers", "message/global-headers":
		r.Original = content(part, MaxOriginal)
	case "message/rfc822", "message/global":
		r.Original, r.OriginalIsFull = content(part, MaxOriginal), true
	}
}

// content returns the decoded bytes of a part, as many as there are up to a fault or the limit.
func content(part *multipart.Part, limit int64) []byte {
	var in io.Reader = part
	switch strings.ToLower(strings.TrimSpace(part.Header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		in = base64.NewDecoder(base64.StdEncoding, part)
	case "quoted-printable":
		in = quotedprintable.NewReader(part)
	}
	p, _ := io.ReadAll(io.LimitReader(in, limit)) // a part that breaks off is read as far as it goes
	return p
}

// readStatus reads the groups of fields: one of the message, then one per recipient (RFC 3464, 2.1).
func (r *Report) readStatus(p []byte) {
	perMessage := true
	for len(p) > 0 && len(r.Recipients) < MaxRecipients {
		group, err := message.ParseHeader(p)
		if errors.Is(err, message.ErrHeaderTooLarge) || group.Len() == 0 {
			return
		}
		p = p[group.Len():]
		if len(group.Bytes()) == 0 {
			continue // one empty line too many
		}
		_, isRecipient := group.Get("Final-Recipient")
		if perMessage && !isRecipient {
			r.readMessageFields(group)
			perMessage = false
			continue
		}
		perMessage = false
		if isRecipient {
			r.Recipients = append(r.Recipients, readRecipient(group))
		}
	}
}

func (r *Report) readMessageFields(group message.Header) {
	r.ReportingMTA = hostOf(unfolded(group, "Reporting-MTA"))
	r.EnvelopeID = clean(unfolded(group, "Original-Envelope-Id"), 500, true)
	r.Arrival = date(unfolded(group, "Arrival-Date"))
}

func readRecipient(group message.Header) RecipientStatus {
	rcpt := RecipientStatus{
		Action:         parseAction(firstWord(unfolded(group, "Action"))),
		Final:          parsePath(parseTyped(unfolded(group, "Final-Recipient")).Address),
		Status:         parseStatus(firstWord(unfolded(group, "Status"))),
		RemoteMTA:      hostOf(unfolded(group, "Remote-MTA")),
		LastAttempt:    date(unfolded(group, "Last-Attempt-Date")),
		WillRetryUntil: date(unfolded(group, "Will-Retry-Until")),
	}
	if v := unfolded(group, "Original-Recipient"); v != "" {
		rcpt.Original = parseTyped(v)
	}
	if kind, text, ok := strings.Cut(unfolded(group, "Diagnostic-Code"), ";"); ok {
		text = strings.Join(strings.Fields(clean(text, maxReply, true)), " ") // folding adds spaces
		if strings.EqualFold(strings.TrimSpace(kind), "smtp") {
			rcpt.Diagnostic = parseReply(text)
		}
		if rcpt.Diagnostic.IsZero() {
			rcpt.Explanation = text
		}
	}
	if rcpt.Action == 0 { // some servers leave it out; the status tells
		switch rcpt.Status.Class {
		case 2:
			rcpt.Action = Delivered
		case 4:
			rcpt.Action = Delayed
		default:
			rcpt.Action = Failed
		}
	}
	return rcpt
}

func unfolded(h message.Header, name string) string {
	v, _ := h.Get(name)
	return string(message.AppendUnfolded(nil, v))
}

// firstWord leaves comments and what else follows away.
func firstWord(s string) string {
	for word := range strings.FieldsSeq(s) {
		before, _, _ := strings.Cut(word, "(")
		return before
	}
	return ""
}

// hostOf takes the name out of "dns; mx.example.net (192.0.2.1)".
func hostOf(s string) string {
	if _, name, ok := strings.Cut(s, ";"); ok {
		s = name
	}
	return clean(firstWord(s), 255, true)
}

func parseAction(s string) Action {
	for a := Failed; a <= Expanded; a++ {
		if strings.EqualFold(s, a.String()) {
			return a
		}
	}
	return 0
}

// parseStatus reads "5.1.1"; anything else is zero.
func parseStatus(s string) smtp.EnhancedCode {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || strings.IndexByte("245", parts[0][0]) < 0 {
		return smtp.EnhancedCode{}
	}
	var n [3]uint16
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil || len(part) > 3 || part[0] == '+' {
			return smtp.EnhancedCode{}
		}
		n[i] = uint16(v)
	}
	return smtp.EnhancedCode{Class: n[0], Subject: n[1], Detail: n[2]}
}

// parseReply reads "550 5.1.1 words", or what servers write like it.
func parseReply(s string) smtp.Reply {
	if len(s) < 3 || s[0] < '2' || s[0] > '5' {
		return smtp.Reply{}
	}
	code, err := strconv.ParseUint(s[:3], 10, 16)
	if err != nil || len(s) > 3 && s[3] != ' ' && s[3] != '-' {
		return smtp.Reply{}
	}
	r := smtp.Reply{Code: int(code)}
	if len(s) == 3 {
		return r
	}
	r.Text = strings.TrimSpace(s[4:])
	word, rest, _ := strings.Cut(r.Text, " ")
	if enhanced := parseStatus(strings.TrimPrefix(word, "#")); !enhanced.IsZero() {
		r.Enhanced, r.Text = enhanced, strings.TrimSpace(rest)
	}
	return r
}

func date(s string) time.Time {
	t, err := mail.ParseDate(strings.TrimSpace(s))
	if err != nil {
		return time.Time{}
	}
	return t
}

// firstMailbox returns the mailbox of the first address in a field, empty if there is none that can be read.
func firstMailbox(s string) string {
	list, err := message.ParseAddresses(strings.TrimSpace(s))
	if err != nil {
		return ""
	}
	return list[0].Mailbox()
}
