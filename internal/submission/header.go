package submission

import (
	"bytes"
	"errors"

	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// Headers says whose headers are put in order.
type Headers uint8

// The ways of Policy.Headers.
const (
	HeadersAuto       Headers = iota // of clients that have logged in
	HeadersSubmission                // of all clients that may send to anyone
	HeadersRelay                     // of nobody
)

// heading is what one pass over a header finds.
type heading struct {
	hops                     int
	from, subject, messageID []byte // the first of each
	hasDate                  bool
	tlsOptional              bool              // "TLS-Required: No" (RFC 8689, 3)
	authors                  [senderFields]int // how many fields there are of each
	dropped                  int               // octets of fields to take out
}

// own is which of the fields that travel with a message are removed.
type own struct {
	submission bool   // Bcc, Return-Path
	authserv   string // Authentication-Results that claim this name; empty: none
}

// removes reports a field that does not travel.
func (o *own) removes(f *message.Field) bool {
	switch len(f.Name) {
	case len("Bcc"):
		return o.submission && f.Is("Bcc")
	case len("Resent-Bcc"):
		return o.submission && f.Is("Resent-Bcc")
	case len("Return-Path"):
		return o.submission && f.Is("Return-Path")
	case len("Authentication-Results"):
		return o.authserv != "" && f.Is(authres.FieldName) && authres.Claims(f.Value, o.authserv)
	}
	return false
}

// scan reads a header once. Names are told apart by their length first, since that costs nothing.
func scan(head message.Header, o *own) heading {
	var h heading
	for f := range head.Fields() {
		switch len(f.Name) {
		case 4:
			switch {
			case f.Is("From"):
				h.authors[fieldFrom]++
				h.from = first(h.from, f.Value)
			case f.Is("Date"):
				h.hasDate = true
			}
		case 6:
			if f.Is("Sender") {
				h.authors[fieldSender]++
			}
		case 7:
			if f.Is("Subject") {
				h.subject = first(h.subject, f.Value)
			}
		case 8:
			if f.Is("Received") {
				h.hops++
			}
		case 10:
			if f.Is("Message-ID") {
				h.messageID = first(h.messageID, f.Value)
			}
		case 11:
			if f.Is("Resent-From") {
				h.authors[fieldResentFrom]++
			}
		case 12:
			if f.Is("TLS-Required") {
				h.tlsOptional = h.tlsOptional || saysNo(f.Value)
			}
		case 13:
			if f.Is("Resent-Sender") {
				h.authors[fieldResentSender]++
			}
		}
		if o.removes(&f) {
			h.dropped += len(f.Raw)
		}
	}
	return h
}

// saysNo reports the one value that TLS-Required has; a comment may follow it (RFC 8689, 3).
func saysNo(value []byte) bool {
	word, _, _ := bytes.Cut(value, []byte("("))
	return bytes.EqualFold(bytes.TrimSpace(word), []byte("No"))
}

// first keeps a value once there is one, even if it is empty.
func first(have, value []byte) []byte {
	if have != nil {
		return have
	}
	return value[:len(value):len(value)]
}

// without returns the fields of a header but for those that are removed.
func without(head message.Header, o *own, size int) []byte {
	kept := make([]byte, 0, size)
	for f := range head.Fields() {
		if !o.removes(&f) {
			kept = append(kept, f.Raw...)
		}
	}
	return kept
}

// checkAuthors asks for every author that a header names whether the client may send as it; the zero reply is yes. A
// header that readers could understand in several ways is refused, whoever it names.
func (s *session) checkAuthors(head message.Header, h *heading, check func(senderField, smtp.Path) smtp.Reply) smtp.Reply {
	if h.authors == [senderFields]int{} {
		return smtp.Reply{}
	}
	for f := range head.Fields() {
		field := senderFieldOf(&f)
		if field == fieldMail {
			continue
		}
		var refusal smtp.Reply
		err := eachAuthor(string(f.Value), func(p smtp.Path) error {
			if refusal = check(field, p); !refusal.IsZero() {
				return errRefusedAuthor
			}
			return nil
		})
		switch {
		case errors.Is(err, errRefusedAuthor):
			return refusal
		case err != nil:
			return replyAuthorUnclear
		}
	}
	if h.authors[fieldFrom] > 1 || h.authors[fieldSender] > 1 {
		return replyAuthorTwice
	}
	return smtp.Reply{}
}

var errRefusedAuthor = errors.New("submission: an author is refused")

// senderFieldOf returns fieldMail for fields that name no author.
func senderFieldOf(f *message.Field) senderField {
	for k := fieldFrom; k < senderFields; k++ {
		if len(f.Name) == len(senderFieldWords[k]) && f.Is(senderFieldWords[k]) {
			return k
		}
	}
	return fieldMail
}
