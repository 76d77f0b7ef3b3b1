package submission

import (
	"context"
	"errors"

	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var (
	replyNotSigned   = say(451, 7, 0, "The message could not be signed now, try again later")
	replyNoAuthor    = say(550, 7, 1, "Sender refused: the message must be signed, and its From field names no author")
	replyNotSignable = say(554, 6, 0, "The message must be signed, and its header is not clear: a line is no field or ends in a bare CR or LF")
)

// seal signs the message whose header begins with the fields of added and goes on with the body. It appends the signatures to
// dst and returns them with the domain that they are for, empty if there are none.
//
// The author domain is that of the From field; of several authors, the first whose domain has keys (RFC 6376, 5.1). A
// header in which they cannot be found names none, and it is up to the Signer whether such mail may go.
func (s *session) seal(
	ctx context.Context, dst, added []byte, body *smtp.Body, head message.Header, h *heading,
) (_ []byte, domain string, _ smtp.Reply) {
	signer := s.door.opts.Signer
	if signer == nil || s.standing == stranger {
		return dst, "", smtp.Reply{}
	}
	var room [6][]byte
	pieces := room[:0]
	if len(added) > 0 {
		pieces = append(pieces, added)
	}
	pieces = body.AppendPieces(pieces)

	begin, asked := len(dst), false
	var fault error
	ask := func(p smtp.Path) error {
		name, err := smtp.DomainToASCII(p.Domain)
		if err != nil {
			return nil // such a domain has no keys
		}
		asked = true
		dst, err = signer.Sign(ctx, dst, pieces, name, s.tenant)
		if len(dst) > begin {
			domain = name
			return errSigned
		}
		if err != nil && fault == nil {
			fault = err
		}
		return nil
	}
	s.eachFrom(head, h, ask)
	if domain == "" && !asked {
		_, fault = signer.Sign(ctx, dst, pieces, "", s.tenant)
		if fault != nil {
			return dst, "", s.unsigned(ctx, fault, replyNoAuthor)
		}
	}
	if domain == "" && fault != nil {
		return dst, "", s.unsigned(ctx, fault, replyNotSigned)
	}
	return dst, domain, smtp.Reply{}
}

// errSigned ends the search for an author.
var errSigned = errors.New("submission: signed")

// eachFrom calls f for the authors of a message until it returns an error.
func (s *session) eachFrom(head message.Header, h *heading, f func(smtp.Path) error) {
	if h.authors[fieldFrom] == 1 {
		_ = eachMailbox(string(h.from), f)
		return
	}
	for field := range head.All("From") {
		if errors.Is(eachMailbox(string(field.Value), f), errSigned) {
			return
		}
	}
}

// unsigned returns the refusal of a message that must be signed and could not be.
func (s *session) unsigned(ctx context.Context, fault error, otherwise smtp.Reply) smtp.Reply {
	switch {
	case errors.Is(fault, dkim.ErrNoFrom):
		return replyAuthorTwice
	case errors.Is(fault, dkim.ErrHeader), errors.Is(fault, dkim.ErrLineEnd), errors.Is(fault, message.ErrHeaderTooLarge):
		return replyNotSignable
	}
	if ctx.Err() == nil {
		s.door.opts.Logger.ErrorContext(ctx, "message not signed", "session", s.peer.Session, "tenant", s.tenant, "error", fault)
	}
	return otherwise
}
