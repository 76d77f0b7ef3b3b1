package auth

import (
	"crypto/x509"
	"net/netip"
	"net/url"
	"strings"

	"github.com/godwit-mta/godwit/smtp"
)

// certificateNames returns the names that a certificate vouches for, in the form that credentials hold them. The common
// name is none of them (RFC 9525, 2).
func certificateNames(c *x509.Certificate) []string {
	names := make([]string, 0, len(c.EmailAddresses)+len(c.DNSNames)+len(c.URIs)+len(c.IPAddresses))
	add := func(s string) {
		if n, ok := certificateName(s); ok {
			names = append(names, n)
		}
	}
	for _, s := range c.EmailAddresses {
		add(s)
	}
	for _, s := range c.DNSNames {
		add(s)
	}
	for _, u := range c.URIs {
		add(u.String())
	}
	for _, ip := range c.IPAddresses {
		add(ip.String())
	}
	return names
}

// certificateName brings a subject alternative name into normal form: an address, a URI, an e-mail address or a DNS
// name. Wildcards name nobody.
func certificateName(s string) (string, bool) {
	if len(s) > 512 || strings.ContainsAny(s, "*\x00 \r\n\t") {
		return "", false
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String(), a.Zone() == ""
	}
	if strings.Contains(s, "://") || strings.HasPrefix(s, "urn:") {
		u, err := url.Parse(s)
		return s, err == nil && u.Scheme != ""
	}
	if at := strings.LastIndexByte(s, '@'); at > 0 {
		p, err := smtp.ParseMailbox(s)
		if err != nil {
			return "", false
		}
		domain, err := smtp.DomainToASCII(p.Domain)
		return p.Local + "@" + domain, err == nil
	}
	domain, err := smtp.DomainToASCII(s)
	return domain, err == nil && domain != "" && domain[0] != '['
}
