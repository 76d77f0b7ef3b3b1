package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"net/netip"
	"strings"

	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/internal/dns"
)

// demand is what a session with one host must have, whoever demands it: the operator, the tenant, the receiver's policy,
// or the message itself.
type demand struct {
	level      Level
	plan       tlspolicy.Plan
	name       string // for SNI, empty if the host has none
	implicit   bool
	login      *Login
	requireTLS bool // of the message (RFC 8689)
	check      func(*tls.ConnectionState) *tlspolicy.Failure
	how        string // word for a session whose check succeeded
	hopeless   string // why nobody could ever prove anything: REQUIRETLS cannot be held
	key        string // see egress.Path
}

// required forbids clear text.
func (d *demand) required() bool {
	return d.level >= LevelEncrypted || d.plan.Required && !d.plan.Testing
}

// verified reports that the host must prove who it is.
func (d *demand) verified() bool { return d.check != nil }

// level joins what tenant and operator demand of mail to a route, or to MX hosts if that is nil.
func (d *Deliverer) level(r *route, tenant string) Level {
	s := d.tls.Load()
	l := s.Default
	if r != nil && r.tls.Level != LevelUnset {
		l = r.tls.Level
	}
	return max(l, min(s.Tenant(tenant), LevelVerified))
}

// levelKeys tell sessions of the operator's levels apart. Below "verified" the level is all there is to know.
var levelKeys = [levels]string{
	LevelNone: "none", LevelOpportunistic: "", LevelEncrypted: "encrypted", LevelVerified: "verified", LevelPinned: "pinned",
}

// constantKey returns the key of an attempt's sessions if that is known without a look at hosts and policies.
func (a *attempt) constantKey(r *route) (string, bool) {
	m := a.job.Message
	if a.wantsTLS() {
		return "", false
	}
	l := a.d.level(r, m.Tenant)
	if r != nil {
		return r.keys[l], true
	}
	if l >= LevelVerified || a.d.o.Policies != nil && !m.TLSOptional && l > LevelNone {
		return "", false
	}
	return levelKeys[l], true
}

// wantsTLS reports a message with REQUIRETLS. A report of ours about such a message is not to be lost for want of it
// (RFC 8689, 5).
func (a *attempt) wantsTLS() bool {
	from := &a.job.Message.From
	return from.RequireTLS && !from.IsNull()
}

// answers are what DNS said on the way to a host; none for the hosts of a route.
type answers struct {
	mx     *dns.MX // nil: no MX record was asked for
	policy DomainPolicy
	domain string
}

// demandOf joins all that is demanded of a session with a host.
func (a *attempt) demandOf(ctx context.Context, to *destination, host string, addrs *dns.Addrs) demand {
	m := a.job.Message
	q := demand{level: a.d.level(to.route, m.Tenant), name: host}
	if _, err := netip.ParseAddr(host); err == nil {
		q.name = ""
	}
	q.requireTLS = a.wantsTLS()
	if r := to.route; r != nil {
		q.implicit, q.login, q.key = r.tls.Implicit, r.tls.Login, r.keys[q.level]
		name := r.tls.Name
		if name != "" {
			q.name = name
		} else {
			name = host
		}
		switch {
		case q.level == LevelPinned:
			q.check, q.how = pinned(r.tls.Pins), "pinned"
		case q.level == LevelVerified || q.requireTLS:
			roots := r.tls.Roots
			if roots == nil {
				roots = a.d.o.Roots
			}
			q.check, q.how = pkix(roots, name), "pkix"
		}
		return a.withRequireTLS(q)
	}
	if to.from.policy != nil && q.level > LevelNone {
		q.plan = to.from.policy.Host(ctx, to.from.mx, host, addrs)
		if m.TLSOptional && !q.requireTLS { // RFC 8689, 3
			q.plan = tlspolicy.Plan{}
		}
	}
	if q.plan.ServerName != "" {
		q.name = q.plan.ServerName
	}
	q.key = levelKeys[q.level]
	if q.plan.Key != "" {
		q.key += " " + q.plan.Key
	}
	switch {
	case q.plan.Verify != nil && !q.plan.Testing:
		verify := q.plan.Verify
		q.check = func(state *tls.ConnectionState) *tlspolicy.Failure {
			if f := wellFormed(state); f != nil && q.plan.Policy == tlspolicy.KindSTS {
				return f
			}
			return verify(state)
		}
		q.how = map[tlspolicy.Kind]string{tlspolicy.KindTLSA: "dane", tlspolicy.KindSTS: "sts"}[q.plan.Policy]
	case q.level == LevelVerified || q.requireTLS:
		a.ownCheck(&q, to, host)
	}
	return a.withRequireTLS(q)
}

// ownCheck demands a certificate where no policy does. The host's name is worth something only if it did not come from
// DNS as anybody could forge it: it was validated, or it lies in the recipient's domain, or there was none to ask for.
func (a *attempt) ownCheck(q *demand, to *destination, host string) {
	mx, domain := to.from.mx, to.from.domain
	q.how = "pkix"
	switch {
	case mx == nil || mx.Authentic:
		q.check = pkix(a.d.o.Roots, host)
		q.key += " pkix"
	case q.requireTLS: // RFC 8689, 4.2.1, step 2
		q.hopeless = "the name of its mail server comes from DNS without DNSSEC, and no MTA-STS policy vouches for it"
	case host == domain || strings.HasSuffix(host, "."+domain):
		q.check = pkix(a.d.o.Roots, host, domain)
		q.key += " pkix " + domain
	default:
		q.check = pkix(a.d.o.Roots, domain)
		q.key += " pkix " + domain
	}
}

func (a *attempt) withRequireTLS(q demand) demand {
	if q.requireTLS {
		q.level = max(q.level, LevelEncrypted)
		q.key += " requiretls"
	}
	q.key = strings.TrimSpace(q.key)
	return q
}

func sha(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}
