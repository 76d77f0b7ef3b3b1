package submission

import (
	"cmp"
	"context"
	"errors"

	"github.com/godwit-mta/godwit/internal/signing"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var (
	replyNotSigned   = say(451, 7, 0, "Not signed: no DKIM key can sign this message now, try again later")
	replyNoKey       = say(550, 7, 1, "Not signed: mail of this author's domain must be signed, and there is no DKIM key for it")
	replyNotSignable = say(554, 6, 0, "Not signed: a line of the header is no field, or ends in a bare CR or LF")
)

// seal signs the message whose header begins with the fields of added and goes on with the body. It appends the signatures to
// dst and returns them with the domain that they are for, empty if there are none.
//
// The author domain is that of the From field; of several authors, the first whose domain has keys (RFC 6376, 5.1). A
// header in which they cannot be found names none, and it is up to the Signer whether such mail may go.
func (s *session) seal(
	ctx context.Context, dst, added []byte, body *smtp.Body, head message.Header,
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

	var fault error
	asked := false
	sign := func(author string) bool {
		asked = true
		out, err := signer.Sign(ctx, dst, pieces, author, s.tenant)
		if err != nil {
			fault = cmp.Or(fault, err)
			return false
		}
		if len(out) > len(dst) {
			dst, domain = out, author
		}
		return domain != ""
	}
	eachFrom(head, func(p smtp.Path) error {
		if name, err := smtp.DomainToASCII(p.Domain); err == nil && sign(name) { // others have no keys
			return errSigned
		}
		return nil
	})
	if !asked {
		sign("")
	}
	if domain == "" && fault != nil {
		return dst, "", s.unsigned(ctx, fault)
	}
	return dst, domain, smtp.Reply{}
}

// errSigned ends the search for an author.
var errSigned = errors.New("submission: signed")

// eachFrom calls f for the authors of a message until it returns errSigned.
func eachFrom(head message.Header, f func(smtp.Path) error) {
	for field := range head.All("From") {
		if errors.Is(eachMailbox(string(field.Value), f), errSigned) {
			return
		}
	}
}

// unsigned returns the refusal of a message that must be signed and could not be: for good where trying again would not help.
func (s *session) unsigned(ctx context.Context, fault error) smtp.Reply {
	switch {
	case errors.Is(fault, dkim.ErrNoFrom):
		return replyAuthorTwice
	case errors.Is(fault, dkim.ErrHeader), errors.Is(fault, dkim.ErrLineEnd), errors.Is(fault, message.ErrHeaderTooLarge):
		return replyNotSignable
	case errors.Is(fault, signing.ErrNone):
		return replyNoKey
	}
	if ctx.Err() == nil {
		s.door.opts.Logger.ErrorContext(ctx, "message not signed", "session", s.peer.Session, "tenant", s.tenant, "error", fault)
	}
	return replyNotSigned
}
