// Package submission is the one way in. Whatever framed a message, SMTP today, it passes here: is the client allowed,
// is the message sound, what are its trace headers, how long may it take; then it is accepted into the spool, and
// only when that is durable does the client get its 250.
//
// A [Door] belongs to one listener and is the backend of its SMTP server. Refusals are fixed texts with the right code;
// the detail goes to the log and to the event log as a refused event.
package submission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/spool"
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
	TrustedNetworks []netip.Prefix // clients that may send to anyone; none: nobody may
	Tenant          string         // owner of what comes in here; empty is "default"
	Stream          string         // lane of what comes in here; empty is "default"
	MaxAge          time.Duration  // how long delivery is tried; must be positive
	DelayNotice     time.Duration  // after which a sender is told of a delay; 0: never
	DelayAlways     bool           // tell also senders who did not ask by NOTIFY=DELAY (RFC 3461, 4.1)
	MaxHops         int            // Received fields above which a message is refused as looping; 0: DefaultMaxHops
}

// Options make a Door. All but Logger and Refused are required.
type Options struct {
	Hostname string
	Listener string // its name, for events
	Policy   Policy
	Spool    Accepter
	IDs      *message.IDs
	Refused  func(*event.Event) // told of each refused message or recipient; must not block or keep the event
	Logger   *slog.Logger
}

// Door is the backend of one listener's SMTP server. It is safe for concurrent use.
type Door struct {
	opts   Options
	policy atomic.Pointer[Policy]
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
	d := &Door{opts: o}
	return d, d.SetPolicy(o.Policy)
}

// SetPolicy replaces the policy; sessions that are open follow it from their next command.
func (d *Door) SetPolicy(p Policy) error {
	if p.MaxAge <= 0 {
		return fmt.Errorf("submission: max age %v is not positive", p.MaxAge)
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
	return &session{door: d, peer: p, client: p.Remote.Addr().Unmap().WithZone("").String()}, smtp.Reply{}
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
