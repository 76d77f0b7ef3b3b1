// Package submission is the one way in. Whatever framed a message, SMTP today, it passes here: who is the client and may it send,
// as whom and to whom, has it not sent too much, is the message sound, what are its trace headers, how long may it take;
// then it is accepted into the spool, and only when that is durable does the client get its 250.
//
// A [Door] belongs to one listener and is the backend of its SMTP server. Refusals are fixed texts with the right code;
// the detail goes to the log and to the event log as a refused event.
//
// # Who may send what
//
// A client that has logged in ([Directory]) may send to anyone, as what its tenant has proven: MAIL FROM, and every
// address in From, Sender, Resent-From and Resent-Sender. A client in TrustedNetworks may send to anyone as anybody, unless
// CheckTrusted says otherwise. Everyone may send to RelayDomains. Nobody else may send anything, whatever the address
// looks like: percent signs, bang paths and quoted addresses in a local part are never routed by, and refused from
// strangers, since the next server might. The client that a proxy names is never trusted by its address.
//
// # What is done to a message
//
// Every message gets our Received field before all others. Mail that comes from outside (strangers, to RelayDomains)
// loses Authentication-Results fields that claim to be ours (RFC 8601, 5), and gets one of ours, and a seal (RFC 8617), where the
// listener finds out who it is from ([inbound]). Mail that is submitted ([Headers]) loses Bcc,
// Resent-Bcc, Return-Path and such Authentication-Results, and gets Date and Message-ID if it has none (RFC 6409, 8).
// Nothing else is touched, and the body never is.
//
// Then it is signed ([Signer]) for the domain of its author, unless it comes from outside: what strangers send to RelayDomains
// never gets our signature, whoever it names. The signatures stand below our Received field and above all others.
package submission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/internal/submission/limits"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// DefaultMaxHops is how many Received fields a message may carry before it is taken to run in a loop (RFC 5321, 6.3).
const DefaultMaxHops = 50

// Accepter keeps messages durably; *spool.Spool is one. On an error nothing of the message is ever sent.
type Accepter interface {
	Accept(ctx context.Context, m *spool.Message, body *smtp.Body) error
}

// Policy is what one listener allows. It is replaced whole on reload.
type Policy struct {
	TrustedNetworks []netip.Prefix // clients that may send to anyone without logging in
	RelayDomains    Domains        // anyone may send to these
	Reports         Addresses      // and to these, where reports of others come in
	ReportSize      int64          // most octets of a stranger's message to one of these; 0: no bound of its own
	Login           Login
	Auth            auth.Policy // of logging in
	CheckTrusted    bool        // senders of mail from TrustedNetworks are checked like those of clients that have logged in
	Headers         Headers
	Verify          inbound.Mode  // of mail from outside: that of strangers
	Tenant          string        // owner of what comes in without a login; empty is "default"
	Stream          string        // lane of what comes in here; empty is "default"
	MaxAge          time.Duration // how long delivery is tried; must be positive
	DelayNotice     time.Duration // after which a sender is told of a delay; 0: never
	DelayAlways     bool          // tell also senders who did not ask by NOTIFY=DELAY (RFC 3461, 4.1)
	MaxHops         int           // Received fields above which a message is refused as looping; 0: DefaultMaxHops
}

// Signer signs messages and counts who gets them; *signing.Signer is one. See there for what is asked of both.
type Signer interface {
	Sign(ctx context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error)
	Sent(domain, tenant, messageID string, recipients int)
}

// Options make a Door. Hostname, Listener, Policy, Spool and IDs are required.
type Options struct {
	Hostname string
	Listener string // its name, for events
	Policy   Policy
	Spool    Accepter
	IDs      *message.IDs

	Directory Directory                             // nil: nobody can log in
	Limits    *limits.Limiter                       // nil: nothing is limited
	Bandwidth *limits.Bandwidth                     // of the listener; nil: no limit
	Tenants   func(tenant string) *limits.Bandwidth // of a tenant; nil, or a nil answer: no limit

	Signer Signer // of mail from clients that may send to anyone; nil: nothing is signed

	// Inbound finds out who mail from outside is from; nil: nothing is found out, whatever Policy.Verify says.
	Inbound *inbound.Checker

	// Own reports a connection of the server's own self-check, which is refused without being told of; nil: there are none.
	Own func(client netip.AddrPort) bool

	Refused func(*event.Event) // told of each refused message or recipient; must not block or keep the event
	Logger  *slog.Logger
}

// Door is the backend of one listener's SMTP server. It is safe for concurrent use.
type Door struct {
	opts     Options
	authserv string // our authserv-id (RFC 8601, 2.5)
	policy   atomic.Pointer[Policy]

	traceRoom int // octets that the fields which we put before a message need, mostly
}

// DefaultTenant owns mail where the configuration names no tenant.
const DefaultTenant = "default"

// New checks the options and returns a Door.
func New(o Options) (*Door, error) {
	if o.Hostname == "" || o.Spool == nil || o.IDs == nil {
		return nil, errors.New("submission: hostname, spool and ids are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Refused == nil {
		o.Refused = func(*event.Event) {}
	}
	if o.Bandwidth == nil {
		o.Bandwidth = new(limits.Bandwidth)
	}
	if o.Own == nil {
		o.Own = func(netip.AddrPort) bool { return false }
	}
	if o.Tenants == nil {
		o.Tenants = func(string) *limits.Bandwidth { return nil }
	}
	d := &Door{opts: o, authserv: strings.ToLower(o.Hostname), traceRoom: 448}
	if o.Signer != nil {
		d.traceRoom += 2560 // for two signatures
	}
	return d, d.SetPolicy(o.Policy)
}

// SetPolicy replaces the policy; sessions that are open follow it from their next command.
func (d *Door) SetPolicy(p Policy) error {
	if p.MaxAge <= 0 {
		return fmt.Errorf("submission: max age %v is not positive", p.MaxAge)
	}
	if p.Login != LoginOff && d.opts.Directory == nil {
		return errors.New("submission: clients are to log in, and there is no directory")
	}
	if p.MaxHops == 0 {
		p.MaxHops = DefaultMaxHops
	}
	if p.Tenant == "" {
		p.Tenant = DefaultTenant
	}
	if p.Stream == "" {
		p.Stream = "default"
	}
	d.policy.Store(&p)
	return nil
}

// NewSession begins a session; nobody is refused a greeting here, so that an answer can say what is wrong.
func (d *Door) NewSession(_ context.Context, p *smtpserver.Peer) (smtpserver.Session, smtp.Reply) {
	addr := p.Remote.Addr().Unmap().WithZone("")
	s := &session{door: d, peer: p, client: addr.String()}
	if s.clientName = s.client; addr.Is6() {
		s.clientName = limits.ClientName(addr)
	}
	return s, smtp.Reply{}
}
