package submission

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Directory knows who may log in; *auth.Directory is one.
type Directory interface {
	Mechanisms(c auth.Client, p auth.Policy) []string
	Begin(ctx context.Context, mechanism string, c auth.Client, p auth.Policy, done func(*auth.Identity)) (sasl.Server, smtp.Reply)
	Owns(tenant, domain string) bool // domain in A-labels; proven by the tenant or assigned to it
}

// Login says whether clients of a listener log in.
type Login uint8

// The ways of Policy.Login.
const (
	LoginOff Login = iota
	LoginOptional
	LoginRequired
)

func (s *session) knock() auth.Client {
	return auth.Client{
		Addr: s.peer.Remote.Addr(), Listener: s.door.opts.Listener, Session: s.peer.Session, TLS: s.peer.TLS,
	}
}

// Mechanisms implements smtpserver.Authenticator.
func (s *session) Mechanisms() []string {
	p := s.door.policy.Load()
	if p.Login == LoginOff || s.door.opts.Directory == nil {
		return nil
	}
	return s.door.opts.Directory.Mechanisms(s.knock(), p.Auth)
}

// Auth implements smtpserver.Authenticator.
func (s *session) Auth(ctx context.Context, mechanism string) (sasl.Server, smtp.Reply) {
	s.pending = nil
	p := s.door.policy.Load()
	return s.door.opts.Directory.Begin(ctx, mechanism, s.knock(), p.Auth, func(i *auth.Identity) { s.pending = i })
}

// AuthDone implements smtpserver.Authenticator.
func (s *session) AuthDone(_ context.Context, _ string, err error) smtp.Reply {
	i := s.pending
	s.pending = nil
	switch {
	case err != nil:
		return smtp.Reply{}
	case i == nil: // an exchange that succeeded for nobody: a fault of ours lets nobody in
		return replyAuthFault
	}
	s.identity = i
	s.peer.Authenticated = safeLogin(i.Login)
	return smtp.Reply{}
}

// safeLogin returns a login name for headers and logs: whatever could end a comment or line is replaced.
func safeLogin(login string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(".-_@+", r):
			return r
		}
		return '?'
	}, login[:min(len(login), 255)])
}

// standing is what a client may do, decided at MAIL.
type standing uint8

const (
	nobody   standing = iota
	stranger          // may send to relay domains
	trusted           // by its address
	known             // has logged in
)

// stand decides what the client may do now. A client that a proxy or a peer named is not trusted by the address that they
// told (PX-5): whoever reaches them would be. policy.OpenRelay does not change that.
func (s *session) stand(p *Policy) (standing, smtp.Reply) {
	switch {
	case s.identity != nil:
		if err := s.identity.Valid(); err != nil {
			return nobody, replyRevoked
		}
		return known, smtp.Reply{}
	case p.Login == LoginRequired:
		return nobody, replyLoginFirst
	case !s.peer.Via.IsValid() && p.trusts(s.peer.Remote.Addr()):
		return trusted, smtp.Reply{}
	case !p.RelayDomains.Empty(), !p.Reports.Empty():
		return stranger, smtp.Reply{}
	case p.Login == LoginOptional:
		return nobody, replyLoginFirst
	}
	return nobody, replyRelayDenied
}

// trusts reports whether a client may relay. An IPv4 client over an IPv6 socket is the IPv4 client.
func (p *Policy) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range p.TrustedNetworks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// takes says whether a stranger's recipient is one that anyone may send to. What a local part could tell the next server to
// route elsewhere is refused: that server trusts us (percent hack, bang paths, quoted addresses).
func (p *Policy) takes(local, domain string) smtp.Reply {
	switch {
	case !p.RelayDomains.Has(domain):
		return replyNotHere
	case strings.ContainsAny(local, "@%!"):
		return replyRouted
	}
	return smtp.Reply{}
}

// Domains is a set of names ("example.com") and of everything below a name ("*.example.com"), in the form of
// smtp.DomainToASCII. The zero value is empty.
type Domains struct {
	exact, below map[string]struct{}
}

// NewDomains returns the set of a list of patterns.
func NewDomains(patterns []string) Domains {
	var d Domains
	for _, p := range patterns {
		set, name := &d.exact, p
		if rest, ok := strings.CutPrefix(p, "*."); ok {
			set, name = &d.below, rest
		}
		if *set == nil {
			*set = make(map[string]struct{})
		}
		(*set)[name] = struct{}{}
	}
	return d
}

// Empty reports a set without patterns.
func (d *Domains) Empty() bool { return len(d.exact)+len(d.below) == 0 }

// Has reports whether a domain is in the set.
func (d *Domains) Has(domain string) bool {
	if _, ok := d.exact[domain]; ok {
		return true
	}
	for rest := domain; len(d.below) > 0; {
		_, up, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if _, ok := d.below[up]; ok {
			return true
		}
		rest = up
	}
	return false
}

// senderField is where a sender was named.
type senderField uint8

const (
	fieldMail senderField = iota
	fieldFrom
	fieldSender
	fieldResentFrom
	fieldResentSender
	senderFields
)

var senderFieldWords = [senderFields]string{"MAIL FROM", "From", "Sender", "Resent-From", "Resent-Sender"}

// replySender refuses a sender. The words are fixed for each field and reason.
func replySender(f senderField, why auth.SenderReason) smtp.Reply {
	text := "is not an address"
	switch why {
	case auth.SenderNull:
		text = "is empty, which this account may not use"
	case auth.SenderForeign:
		text = "is in a domain that this account has neither proven nor been assigned"
	case auth.SenderRestricted:
		text = "is not among the senders that this account is restricted to"
	}
	return smtp.Reply{Code: 550, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 1},
		Text: "Sender refused: " + senderFieldWords[f] + " " + text}
}

// checkSender asks whether the client may send as path; the zero reply is yes.
func (s *session) checkSender(ctx context.Context, f senderField, path smtp.Path) smtp.Reply {
	if s.identity == nil { // trusted by address, and the tenant wants it checked all the same
		return s.checkTrustedSender(f, path)
	}
	err := s.identity.MaySend(ctx, path)
	var sender *auth.SenderError
	switch {
	case err == nil:
		return smtp.Reply{}
	case errors.As(err, &sender):
		return replySender(f, sender.Reason)
	}
	return replyRevoked
}

func (s *session) checkTrustedSender(f senderField, path smtp.Path) smtp.Reply {
	if path.IsNull() {
		return smtp.Reply{} // reports of a mail server that relays here
	}
	domain, err := smtp.DomainToASCII(path.Domain)
	if err != nil || domain == "" || domain[0] == '[' {
		return replySender(f, auth.SenderMalformed)
	}
	if !s.door.opts.Directory.Owns(s.tenant, domain) {
		return replySender(f, auth.SenderForeign)
	}
	return smtp.Reply{}
}

// checksSenders reports whether the senders of this client are checked.
func (s *session) checksSenders(p *Policy) bool {
	return s.standing == known || s.standing == trusted && p.CheckTrusted && s.door.opts.Directory != nil
}
