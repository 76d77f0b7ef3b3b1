package delivery

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
)

// Level is how much TLS the operator demands of a session. Of two demands the higher level counts.
type Level uint8

const (
	LevelUnset Level = iota // says nothing: the default holds
	// LevelNone never asks for TLS.
	LevelNone
	// LevelOpportunistic takes what it can get, old versions and false certificates too, and goes on in the clear where TLS
	// cannot be had (RFC 7435).
	LevelOpportunistic
	// LevelEncrypted demands TLS 1.2 or later of whoever answers.
	LevelEncrypted
	// LevelVerified demands that the host proves to be the one that was meant.
	LevelVerified
	// LevelPinned demands that the host has one of the keys that the operator wrote down.
	LevelPinned
	levels
)

var levelWords = [levels]string{"", "none", "opportunistic", "encrypted", "verified", "pinned"}

// String returns the word that stands in configurations, empty for LevelUnset.
func (l Level) String() string {
	if l < levels {
		return levelWords[l]
	}
	return ""
}

// ParseLevel reads a level's word; the empty one is LevelUnset.
func ParseLevel(word string) (Level, error) {
	for l := range levels {
		if levelWords[l] == word {
			return l, nil
		}
	}
	return 0, fmt.Errorf("delivery: %q is no level of TLS", word)
}

// Pin is the SHA-256 of a host's public key (SubjectPublicKeyInfo).
type Pin [32]byte

// String returns the form of configurations.
func (p Pin) String() string { return "sha256:" + base64.StdEncoding.EncodeToString(p[:]) }

// Login is what a smart host is shown. It is sent to a host alone that has proven who it is.
type Login struct{ Username, Password string }

// LogValue keeps the password out of logs.
func (l Login) LogValue() slog.Value { return slog.StringValue(l.Username) }

// String keeps the password out of everything else.
func (l Login) String() string { return l.Username }

// GoString does, too.
func (l Login) GoString() string { return "Login{" + l.Username + "}" }

// RouteTLS is what a route demands of its hosts.
type RouteTLS struct {
	Level Level
	Pins  []Pin // LevelPinned: one of them is the key of the host's own certificate
	// Name is who the hosts are to prove to be, if that is not the name they are reached by.
	Name  string
	Roots *x509.CertPool // whom to trust, nil: the system's
	// Implicit begins with TLS instead of STARTTLS (RFC 8314, 3.3).
	Implicit bool
	Login    *Login // nil: none
}

// check reports what cannot be.
func (t *RouteTLS) check() error {
	switch {
	case t.Level >= levels:
		return errors.New("no such level of TLS")
	case t.Level == LevelPinned && len(t.Pins) == 0:
		return errors.New("pinned, and no pins")
	case t.Level != LevelPinned && len(t.Pins) > 0:
		return errors.New("pins, and not pinned")
	case t.Login != nil && t.Level < LevelVerified:
		return errors.New("a login is sent to hosts alone that are verified or pinned")
	case t.Implicit && t.Level == LevelNone:
		return errors.New("implicit TLS, and none is to be used")
	}
	return nil
}

// key tells routes to the same hosts apart, since their sessions must not be shared. Empty: nothing is asked.
func (t *RouteTLS) key() string {
	var b strings.Builder
	if t.Level != LevelUnset {
		b.WriteString("route:" + t.Level.String())
	}
	for _, p := range t.Pins {
		b.WriteString(" " + p.String())
	}
	if t.Name != "" {
		b.WriteString(" name:" + t.Name)
	}
	if t.Roots != nil {
		fmt.Fprintf(&b, " roots:%p", t.Roots) // a pool read anew is another one
	}
	if t.Implicit {
		b.WriteString(" implicit")
	}
	if t.Login != nil {
		fmt.Fprintf(&b, " login:%q:%x", t.Login.Username, sha(t.Login.Password))
	}
	return b.String()
}

// TLSSettings is what holds where no route says more.
type TLSSettings struct {
	Default Level // LevelOpportunistic
	// Tenant says what a tenant demands for its mail, at most LevelVerified: pins belong to routes. It is asked for each attempt,
	// and safe for concurrent use. Nil: no tenant demands anything.
	Tenant func(id string) Level
}

func (s TLSSettings) withDefaults() (TLSSettings, error) {
	if s.Default == LevelUnset {
		s.Default = LevelOpportunistic
	}
	if s.Default >= LevelPinned {
		return s, errors.New("delivery: pins belong to routes")
	}
	if s.Tenant == nil {
		s.Tenant = func(string) Level { return LevelUnset }
	}
	return s, nil
}

// Policies finds what recipients' domains published. [Published] makes one of [tlspolicy.Policies].
type Policies interface {
	// Domain never returns nil. It waits a bounded time if nothing is known yet.
	Domain(ctx context.Context, domain string) DomainPolicy
}

// DomainPolicy is what one domain published.
type DomainPolicy interface {
	// Host says what holds towards one of its hosts, given the answers that led there.
	Host(ctx context.Context, mx *dns.MX, host string, addrs *dns.Addrs) tlspolicy.Plan
	// Findings are to be reported with each attempt.
	Findings() []*tlspolicy.Failure
}

// Published are the policies that p finds.
func Published(p *tlspolicy.Policies) Policies { return published{p} }

type published struct{ p *tlspolicy.Policies }

func (p published) Domain(ctx context.Context, domain string) DomainPolicy {
	return publishedDomain{p.p.Domain(ctx, domain)}
}

type publishedDomain struct{ *tlspolicy.Domain }

func (d publishedDomain) Findings() []*tlspolicy.Failure { return d.Notes }

// Floors remembers hosts that used to have TLS. tlsfloor.Floors is one.
type Floors interface {
	// Worked notes a session over TLS.
	Worked(host string)
	// Missing notes that TLS could not be had. wait says that the host is not to be used in the clear yet.
	Missing(host, why string) (wait bool)
}
