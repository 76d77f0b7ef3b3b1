package tlspolicy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/smtp"
)

// Show tells an operator what holds towards a domain, and what it means for each of its hosts. It asks as mail would.
func (p *Policies) Show(ctx context.Context, domain string) api.DomainTLS {
	domain = normal(domain)
	out := api.DomainTLS{Domain: domain, Notes: []string{}, Hosts: []api.TLSHost{}}
	d := p.Domain(ctx, domain)
	for _, n := range d.Notes {
		out.Notes = append(out.Notes, n.Error())
	}
	if e := p.cache.get(domain); e.holds(time.Now()) {
		out.STS = &api.STSPolicy{
			Mode: string(e.policy.mode), MX: append([]string{}, e.policy.patterns...), ID: e.id,
			Fetched: e.fetched, Expires: e.expires, Refresh: e.refresh, Failed: e.failed,
		}
	}
	mx, err := p.o.Resolver.LookupMX(ctx, domain)
	if err != nil {
		out.Error = explain(err)
		return out
	}
	out.Signed = mx.Authentic
	for _, h := range mx.Hosts {
		host := api.TLSHost{Host: h.Name, Preference: int(h.Preference)}
		addrs, err := p.o.Resolver.LookupAddrs(ctx, h.Name)
		if err != nil {
			host.Policy, host.Meaning = string(KindNone), "not used: "+explain(err)
			out.Hosts = append(out.Hosts, host)
			continue
		}
		plan := d.Host(ctx, &mx, h.Name, &addrs)
		host.Policy, host.Used, host.Testing = string(plan.Policy), plan.Skip == nil, plan.Testing
		host.Required, host.Verified = plan.Required && !plan.Testing, plan.Verify != nil && !plan.Testing
		if plan.Policy == KindTLSA {
			host.Records, host.Base = plan.Strings, plan.Domain
		}
		host.Meaning = plan.meaning()
		out.Hosts = append(out.Hosts, host)
	}
	return out
}

// normal is a domain as an operator types it in the form of this package.
func normal(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if ascii, err := smtp.DomainToASCII(domain); err == nil {
		domain = ascii
	}
	return strings.ToLower(domain)
}

// meaning says a plan in words.
func (p *Plan) meaning() string {
	var text string
	switch {
	case p.Skip != nil:
		return "not used: " + p.Skip.Detail
	case p.Testing:
		text = "TLS if it can be had; what an enforced policy would not let through is reported"
	case p.Policy == KindTLSA && p.Verify != nil:
		text = fmt.Sprintf("TLS with a certificate that fits the TLSA records of %s, or the mail waits", p.ServerName)
	case p.Policy == KindTLSA:
		text = "TLS, whoever answers, or the mail waits"
	case p.Policy == KindSTS:
		text = fmt.Sprintf("TLS with a trusted certificate for %s, or the mail waits", p.ServerName)
	default:
		text = "TLS if it can be had, whoever answers"
	}
	if p.Note != nil {
		text += "; " + p.Note.Detail
	}
	return text
}
