// Package dnspublish writes records into the DNS of the operator: TXT records of DKIM keys, and those that prove a name to a
// certificate authority. It speaks the two ways that libdns has been tested with here:
//
//   - rfc2136: updates to a name server of one's own, signed by TSIG (RFC 2136, RFC 8945; BIND, Knot, PowerDNS);
//   - cloudflare: the API of Cloudflare.
//
// A Publisher knows its zones and leaves names outside them alone:
//
//	p, err := dnspublish.New(dnspublish.Options{
//		Access: dnspublish.Access{Provider: "rfc2136", Server: "192.0.2.53:53", KeyName: "godwit", Secret: "..."},
//		Zones:  []string{"example.com"},
//	})
//	err = p.SetTXT(ctx, "s202611r._domainkey.example.com", "v=DKIM1; k=rsa; p=...")
//
// A text of more than 255 octets becomes several strings of one record (RFC 1035, 3.3; RFC 6376, 3.6.2.2).
//
// RFC 2136: updates of one name at a time. RFC 8945: TSIG, with HMAC-SHA-256 unless something else is said. No secret is part of
// any error.
package dnspublish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"

	"github.com/godwit-mta/godwit/smtp"
)

// Access says who is asked to change records, and what shows that we may.
type Access struct {
	Provider string // "rfc2136" or "cloudflare"
	Secret   string // TSIG key in base64, or API token

	// For rfc2136.
	Server       string // host:port
	KeyName      string // of the TSIG key
	KeyAlgorithm string // such as "hmac-sha512"; default "hmac-sha256"
}

// Challenger sets and removes the records of ACME's DNS-01 (RFC 8555, 8.4). It is what the ACME library asks for.
type Challenger interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// provider is what a Publisher needs.
type provider interface {
	Challenger
	libdns.RecordSetter
}

// Challenger returns what sets records of challenges.
func (a *Access) Challenger() (Challenger, error) { return a.provider() }

func (a *Access) provider() (provider, error) {
	switch a.Provider {
	case "rfc2136":
		if a.Server == "" || a.KeyName == "" || a.Secret == "" {
			return nil, errors.New("rfc2136 needs a server, the name of a key and the key")
		}
		if _, _, err := net.SplitHostPort(a.Server); err != nil {
			return nil, fmt.Errorf("rfc2136: server %q is no address with a port", a.Server)
		}
		return &rfc2136.Provider{
			Server: a.Server, KeyName: a.KeyName, KeyAlg: cmp.Or(a.KeyAlgorithm, "hmac-sha256"), Key: a.Secret,
		}, nil
	case "cloudflare":
		if a.Secret == "" {
			return nil, errors.New("cloudflare needs an API token")
		}
		return &cloudflare.Provider{APIToken: a.Secret}, nil
	}
	return nil, fmt.Errorf("DNS provider %q is not known", a.Provider)
}

// Options describe a Publisher.
type Options struct {
	Access Access
	Zones  []string      // that it may write; at least one
	TTL    time.Duration // of records that are written; default 1 h
}

// Publisher writes TXT records. It is safe for concurrent use.
type Publisher struct {
	provider provider
	secret   string
	zones    []string // the longest first, in A-labels
	ttl      time.Duration
}

// New checks the options. It asks nobody.
func New(o Options) (*Publisher, error) {
	p := &Publisher{secret: o.Access.Secret, ttl: cmp.Or(o.TTL, time.Hour)}
	var err error
	if p.provider, err = o.Access.provider(); err != nil {
		return nil, fmt.Errorf("dnspublish: %w", err)
	}
	if len(o.Zones) == 0 {
		return nil, errors.New("dnspublish: no zones")
	}
	if p.ttl < time.Second || p.ttl > 7*24*time.Hour {
		return nil, fmt.Errorf("dnspublish: a TTL of %v is not between 1s and 7d", p.ttl)
	}
	for _, z := range o.Zones {
		name, err := smtp.DomainToASCII(strings.TrimSuffix(z, "."))
		if err != nil || name == "" || strings.HasPrefix(name, "[") {
			return nil, fmt.Errorf("dnspublish: %q is no zone", z)
		}
		p.zones = append(p.zones, strings.ToLower(name))
	}
	slices.SortFunc(p.zones, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return p, nil
}

// zone returns the zone that a name lies in.
func (p *Publisher) zone(name string) (string, bool) {
	for _, z := range p.zones {
		if rest, ok := strings.CutSuffix(name, z); ok && (rest == "" || strings.HasSuffix(rest, ".")) {
			return z, true
		}
	}
	return "", false
}

// Covers reports whether a name (lower case, A-labels, no final dot) lies in a zone that is written.
func (p *Publisher) Covers(name string) bool {
	_, ok := p.zone(name)
	return ok
}

// SetTXT makes text the only TXT record of name.
func (p *Publisher) SetTXT(ctx context.Context, name, text string) error {
	return p.change(name, text, func(zone string, r libdns.Record) error {
		_, err := p.provider.SetRecords(ctx, zone, []libdns.Record{r})
		return err
	})
}

// leaving is the text of a record that is about to go.
const leaving = "removed"

// RemoveTXT leaves name without TXT records. That there are none is no error.
func (p *Publisher) RemoveTXT(ctx context.Context, name string) error {
	// Records are removed by their text, and not every provider tells a long one as it was given. So it becomes a short
	// one first.
	return p.change(name, leaving, func(zone string, r libdns.Record) error {
		if _, err := p.provider.SetRecords(ctx, zone, []libdns.Record{r}); err != nil {
			return err
		}
		_, err := p.provider.DeleteRecords(ctx, zone, []libdns.Record{r})
		return err
	})
}

func (p *Publisher) change(name, text string, how func(zone string, r libdns.Record) error) error {
	zone, ok := p.zone(name)
	if !ok {
		return fmt.Errorf("%s lies in no zone that may be written", name)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' { // what providers quote differently
			return fmt.Errorf("the text for %s has characters that are not published", name)
		}
	}
	r := libdns.TXT{Name: libdns.RelativeName(name, zone), TTL: p.ttl, Text: text}
	if err := how(zone, r); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), p.secret, "(secret)"))
	}
	return nil
}
