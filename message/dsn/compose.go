package dsn

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/message"
)

// Errors of [Report.Compose].
var (
	ErrIncomplete = errors.New("dsn: the report lacks a part it cannot do without")
	ErrNeedUTF8   = errors.New("dsn: the sender's address needs UTF-8, which the report may not use")
)

// Compose returns the notification in wire form: CRLF line ends, no line above 998 octets. It is 7-bit unless it
// returns a full message that is not, or UTF8 is set and needed. Equal reports compose to equal bytes.
func (r *Report) Compose() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	original := r.original()
	utf := r.UTF8 && (!isASCII(r.To) || original.utf8Header || r.utf8Recipients())
	words := r.words(original)
	fields := r.fields(utf)
	boundary := boundaryFor(words, fields, original.content)

	p := make([]byte, 0, 2048+len(words)+len(fields)+len(original.content))
	p, err := r.appendHeader(p, boundary, original)
	if err != nil {
		return nil, err
	}
	p = appendPart(p, boundary, "Notification", "text/plain; charset=utf-8", words, true)
	if utf {
		p = appendPart(p, boundary, "Delivery status", "message/global-delivery-status", fields, false)
	} else {
		p = appendPart(p, boundary, "Delivery status", "message/delivery-status", fields, false)
	}
	if len(original.content) > 0 {
		p = original.appendTo(p, boundary, utf)
	}
	return append(append(append(p, "--"...), boundary...), "--\r\n"...), nil
}

func (r *Report) check() error {
	switch {
	case r.Action.String() == "":
		return fmt.Errorf("%w: what happened", ErrIncomplete)
	case r.ReportingMTA == "" || r.From == "" || r.Now.IsZero():
		return fmt.Errorf("%w: who reports, and when", ErrIncomplete)
	case r.To == "":
		return fmt.Errorf("%w: whom to tell; a null reverse-path gets no report", ErrIncomplete)
	case len(r.Recipients) == 0 || len(r.Recipients) > MaxRecipients:
		return fmt.Errorf("%w: 1 to %d recipients, not %d", ErrIncomplete, MaxRecipients, len(r.Recipients))
	case !isASCII(r.To) && !r.UTF8:
		return ErrNeedUTF8
	}
	return nil
}

func (r *Report) utf8Recipients() bool {
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		if !isASCII(rcpt.Final.Local) || !isASCII(rcpt.Final.Domain) || !isASCII(rcpt.Original.Address) {
			return true
		}
	}
	return false
}

var subjects = map[Action]string{
	Failed:    "Undelivered mail: your message could not be delivered",
	Delayed:   "Delayed mail: your message has not been delivered yet",
	Delivered: "Delivered: your message has arrived",
	Relayed:   "Relayed: your message was passed on",
	Expanded:  "Delivered: your message has arrived at a mailing list",
}

func (r *Report) appendHeader(p []byte, boundary string, original original) ([]byte, error) {
	from, err := oneAddress("Mail Delivery System", r.From)
	if err != nil {
		return nil, err
	}
	to, err := oneAddress("", r.To)
	if err != nil {
		return nil, err
	}
	p = append(message.AppendDate(append(p, "Date: "...), r.Now), "\r\n"...)
	p = append(append(append(p, "From: "...), from...), "\r\n"...)
	p = append(append(append(p, "To: "...), to...), "\r\n"...)
	p = append(append(append(p, "Subject: "...), subjects[r.Action]...), "\r\n"...)
	if r.MessageID != "" {
		if p, err = message.AppendField(p, "Message-ID", "<"+r.MessageID+">"); err != nil {
			return nil, err
		}
	}
	if original.messageID != "" { // threads the report with the message (RFC 3834, 3.1.5)
		p = append(append(append(p, "In-Reply-To: "...), original.messageID...), "\r\n"...)
		p = append(append(append(p, "References: "...), original.messageID...), "\r\n"...)
	}
	p = append(p, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"...) // RFC 3834, 5
	p = append(p, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\""...)
	p = append(append(p, boundary...), "\"\r\n\r\n"...)
	return append(p, "This is a delivery status notification in the format of RFC 3464.\r\n\r\n"...), nil
}

func oneAddress(name, mailbox string) (string, error) {
	path := parsePath(mailbox)
	if path.Domain == "" { // <postmaster> needs none in SMTP, but a header field does
		return "", fmt.Errorf("%w: %q is not a mailbox", ErrIncomplete, clean(mailbox, 64, false))
	}
	return message.FormatAddresses([]message.Address{{Name: name, Local: path.Local, Domain: path.Domain}})
}

// appendPart appends a part, encoded so that it is 7-bit if text says that it is text; status fields in UTF-8 stay as
// they are (RFC 6533, 4).
func appendPart(p []byte, boundary, description, media string, content []byte, text bool) []byte {
	p = append(append(append(p, "--"...), boundary...), "\r\n"...)
	p = append(append(append(p, "Content-Description: "...), description...), "\r\n"...)
	p = append(append(append(p, "Content-Type: "...), media...), "\r\n"...)
	switch {
	case isASCII(content) && shortLines(content):
		p = append(append(p, "\r\n"...), content...)
	case text:
		p = append(p, "Content-Transfer-Encoding: quoted-printable\r\n\r\n"...)
		p = appendQuotedPrintable(p, content)
	default:
		p = append(append(p, "Content-Transfer-Encoding: 8bit\r\n\r\n"...), content...)
	}
	return append(p, "\r\n"...)
}

func appendQuotedPrintable(p, content []byte) []byte {
	out := bytes.NewBuffer(p)
	w := quotedprintable.NewWriter(out)
	w.Write(content) // a bytes.Buffer takes all
	w.Close()
	return out.Bytes()
}

// lineMax is what no line may exceed (RFC 5322, 2.1.1).
const lineMax = 998

func shortLines(p []byte) bool {
	for line := range bytes.Lines(p) {
		if len(bytes.TrimRight(line, "\r\n")) > lineMax {
			return false
		}
	}
	return true
}

// boundaryFor returns a boundary that occurs in none of the parts. It is made from them, so that equal reports are
// equal.
func boundaryFor(parts ...[]byte) string {
	hash := sha256.New()
	for _, p := range parts {
		hash.Write(p)
	}
	for sum := hash.Sum(nil); ; sum = hash.Sum(sum[:0]) {
		b := "=_report_" + hex.EncodeToString(sum[:12])
		if !occurs(b, parts) {
			return b
		}
		hash.Write(sum)
	}
}

func occurs(b string, parts [][]byte) bool {
	for _, p := range parts {
		if bytes.Contains(p, []byte(b)) {
			return true
		}
	}
	return false
}

// fields returns the content of the second part (RFC 3464, 2).
func (r *Report) fields(utf bool) []byte {
	var p []byte
	field := func(name, value string) { p = fold(p, name+": ", " ", value) }
	date := func(name string, t time.Time) {
		if !t.IsZero() {
			field(name, message.FormatDate(t))
		}
	}
	if r.EnvelopeID != "" {
		field("Original-Envelope-Id", clean(r.EnvelopeID, 500, false))
	}
	field("Reporting-MTA", "dns; "+clean(r.ReportingMTA, 255, utf))
	date("Arrival-Date", r.Arrival)
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		action := r.action(rcpt)
		p = append(p, "\r\n"...)
		if rcpt.Original.Address != "" {
			field("Original-Recipient", typed(rcpt.Original.Type, rcpt.Original.Address, utf))
		}
		field("Final-Recipient", typed("", rcpt.Final.String(), utf))
		field("Action", action.String())
		field("Status", rcpt.status(action).String())
		if rcpt.RemoteMTA != "" {
			field("Remote-MTA", "dns; "+clean(rcpt.RemoteMTA, 255, utf))
		}
		p = rcpt.appendDiagnostic(p, utf)
		date("Last-Attempt-Date", rcpt.LastAttempt)
		if action == Delayed {
			date("Will-Retry-Until", rcpt.WillRetryUntil)
		}
	}
	return p
}

// appendDiagnostic appends the reply of the other host, or what this one found without any.
func (rcpt *RecipientStatus) appendDiagnostic(p []byte, utf bool) []byte {
	if lines := replyLines(rcpt.Diagnostic, utf); lines != nil {
		return fold(p, "Diagnostic-Code: ", " ", "smtp; "+strings.Join(lines, " "))
	}
	if rcpt.Explanation != "" {
		return fold(p, "Diagnostic-Code: ", " ", "x-godwit; "+clean(rcpt.Explanation, maxReplyLine, utf))
	}
	return p
}

// original is the third part.
type original struct {
	content    []byte
	full       bool
	utf8Header bool
	reduced    bool   // a full message was asked for and is too large
	messageID  string // with angle brackets, fit for a field
	subject    string // decoded and cleaned
}

// original chooses what to return of the message, and reads what the report says of it.
func (r *Report) original() original {
	o := original{content: r.Original, full: r.OriginalIsFull}
	header, err := message.ParseHeader(r.Original)
	if errors.Is(err, message.ErrHeaderTooLarge) {
		return original{reduced: r.OriginalIsFull}
	}
	fields := header.Bytes()
	o.utf8Header = !isASCII(fields)
	o.messageID = messageID(header)
	o.subject = subject(header)
	if o.full && (len(o.content) > MaxOriginal || !wireForm(o.content) || o.utf8Header && !r.UTF8) {
		o.full, o.reduced = false, true
	}
	if !o.full {
		if o.content = boundHeader(header); !wireForm(o.content) {
			o.content = wireLines(o.content)
		}
	}
	return o
}

// wireLines gives each line its CRLF and takes out what no line may hold. Long lines stay: the part is encoded then.
func wireLines(p []byte) []byte {
	var out []byte
	for line := range bytes.Lines(p) {
		for _, c := range bytes.TrimRight(line, "\r\n") {
			if c == '\r' || c == 0 {
				c = '?'
			}
			out = append(out, c)
		}
		out = append(out, '\r', '\n')
	}
	return out
}

// boundHeader returns the fields, as many as MaxOriginal has room for.
func boundHeader(h message.Header) []byte {
	if len(h.Bytes()) <= MaxOriginal {
		return h.Bytes()
	}
	end := 0
	for f := range h.Fields() {
		if f.Offset+len(f.Raw) > MaxOriginal {
			break
		}
		end = f.Offset + len(f.Raw)
	}
	return h.Bytes()[:end]
}

// wireForm reports whether p can be a part as it is: CRLF line ends, short lines, no NUL.
func wireForm(p []byte) bool {
	for line := range bytes.Lines(p) {
		body, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok && bytes.HasSuffix(line, []byte("\n")) || len(body) > lineMax || bytes.ContainsAny(body, "\r\x00") {
			return false
		}
	}
	return true
}

// appendTo appends the third part: a whole message cannot be encoded (RFC 2046, 5.2.1), header fields can.
func (o original) appendTo(p []byte, boundary string, utf bool) []byte {
	if !o.full {
		media := "text/rfc822-headers"
		if utf && o.utf8Header {
			media = "message/global-headers"
		}
		return appendPart(p, boundary, "Header of your message", media, o.content, media == "text/rfc822-headers")
	}
	media := "message/rfc822"
	if utf && o.utf8Header {
		media = "message/global"
	}
	return appendPart(p, boundary, "Your message", media, o.content, false)
}
