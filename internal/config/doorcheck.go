package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godwit-mta/godwit/smtp"
)

const pairExample = `tls: {certificates: [{name: main, certificate: /etc/godwit/tls/cert.pem, key: /etc/godwit/tls/key.pem}]}`

// checkDoor checks who may come in at a listener. ip is the address that it listens on.
func (d *decoder) checkDoor(key string, l *Listener, ip netip.Addr) {
	d.checkListenerTLS(key, l)
	d.checkListenerAuth(key, l, ip)
	d.checkWhoSends(key, l)
	for name, networks := range map[string][]netip.Prefix{"proxy_protocol": l.ProxyProtocol, "xclient": l.XClient} {
		for i, p := range networks {
			if tooWide(p) {
				d.wrong(fmt.Sprintf("%s.%s[%d]", key, name, i),
					p.String()+" covers much of the internet, and all in it could claim any address", "list the addresses of your proxies")
			}
		}
	}
	if len(l.ProxyProtocol) > 0 && l.Auth == "off" && len(l.RelayDomains) == 0 {
		d.advise(key+".proxy_protocol", "clients that a proxy names are never trusted by their address, so nobody behind it may send",
			"set auth: required")
	}
	for i, p := range l.AllowNetworks {
		denied := func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) }
		if slices.ContainsFunc(l.DenyNetworks, denied) {
			d.advise(fmt.Sprintf("%s.allow_networks[%d]", key, i), p.String()+" lies within deny_networks, which go first",
				"remove it from one of them")
		}
	}
}

func (d *decoder) checkListenerTLS(key string, l *Listener) {
	c := d.cfg
	if l.TLS == "off" {
		for name, given := range map[string]bool{"certificate": l.Certificate != "", "client_certificates": l.ClientCertificates != "off",
			"client_ca": l.ClientCA != ""} {
			if given {
				d.wrong(key+"."+name, "is of no use without TLS", "set tls: starttls or tls: implicit on this listener")
			}
		}
		return
	}
	names := make([]string, len(c.TLS.Certificates))
	for i := range names {
		names[i] = c.TLS.Certificates[i].Name
	}
	switch {
	case len(names) == 0 && len(c.TLS.ACME.Domains) == 0 && !d.doubtful[""] && !d.doubtful["tls"]:
		d.wrong(key+".tls", l.TLS+" needs a certificate, and there is none",
			`add at the top level: `+pairExample+` ("godwit cert self-signed" makes a pair to try with)`)
	case l.Certificate != "" && !slices.Contains(names, l.Certificate):
		advice := "add it there"
		if len(names) > 0 {
			advice = "write " + orList(names)
		}
		d.wrong(key+".certificate", strconv.Quote(l.Certificate)+" is not in tls.certificates", advice)
	}
	switch {
	case l.ClientCertificates != "off" && l.ClientCA == "":
		d.missing(key, "client_ca", "is missing, so no client certificate could be checked",
			"name the file with the authority's certificates, such as /etc/godwit/tls/clients.pem")
	case l.ClientCA != "" && !filepath.IsAbs(l.ClientCA):
		d.notAbsolute(key+".client_ca", l.ClientCA)
	case l.ClientCA != "" && l.ClientCertificates == "off":
		d.wrong(key+".client_ca", "is of no use while client_certificates is off", "set client_certificates: optional or required")
	}
}

func (d *decoder) notAbsolute(key, path string) {
	d.wrong(key, strconv.Quote(path)+" is not an absolute path", "write it from the root, such as /etc/godwit/tls/"+filepath.Base(path))
}

func (d *decoder) checkListenerAuth(key string, l *Listener, ip netip.Addr) {
	switch {
	case !ip.IsValid(), d.doubtful[key], d.noted(key + ".tls"): // what seems wrong here may follow from that
	case l.InsecureAuth && !ip.IsLoopback():
		d.wrong(key+".insecure_auth", "would send passwords in clear over the network",
			"remove it and set tls: starttls; it is for loopback addresses alone")
	case l.Auth != "off" && l.TLS == "off" && !ip.IsLoopback():
		d.wrong(key+".auth", "without TLS would send passwords in clear over the network", "set tls: starttls on this listener")
	case l.Auth != "off" && l.TLS == "off" && !l.InsecureAuth:
		d.wrong(key+".auth", "could not be used: passwords are not taken without TLS",
			"set tls: starttls, or on this loopback address insecure_auth: true")
	case l.Auth == "off" && len(l.AuthMechanisms) > 0:
		d.wrong(key+".auth_mechanisms", "are of no use while auth is off", "set auth: required or auth: optional")
	}
	for i, m := range l.AuthMechanisms {
		at := fmt.Sprintf("%s.auth_mechanisms[%d]", key, i)
		switch {
		case slices.Index(l.AuthMechanisms, m) != i:
			d.wrong(at, m+" is given twice", "keep one of them")
		case m == "EXTERNAL" && l.ClientCertificates == "off":
			d.wrong(at, "EXTERNAL needs client certificates", "set client_certificates: optional, and client_ca")
		case (m == "OAUTHBEARER" || m == "XOAUTH2") && len(d.cfg.Auth.OAuth) == 0 && !d.doubtful["auth"]:
			d.wrong(at, m+" needs an issuer of tokens",
				"add at the top level: auth: {oauth: [{name: corp, issuer: https://login.example.com, audience: godwit}]}")
		case m == "SCRAM-SHA-256-PLUS" && l.TLS == "off":
			d.wrong(at, m+" is bound to TLS", "set tls: starttls")
		}
	}
}

// tooWide reports a network that is more than one organisation's.
func tooWide(p netip.Prefix) bool {
	if p.Addr().Is6() {
		return p.Bits() < 7 // fc00::/7
	}
	return p.Bits() < 8 // 10.0.0.0/8
}

func (d *decoder) checkWhoSends(key string, l *Listener) {
	if len(l.TrustedNetworks) == 0 && l.Auth == "off" && len(l.RelayDomains) == 0 && len(d.cfg.Reports.Addresses) == 0 {
		d.missing(key, "trusted_networks", "is empty, so every message would be refused",
			"list the networks that may send, such as [127.0.0.0/8], or let clients log in: auth: required")
	}
	for i, p := range l.TrustedNetworks {
		at := fmt.Sprintf("%s.trusted_networks[%d]", key, i)
		switch {
		case !tooWide(p):
		case !l.OpenRelay:
			shortest := 8
			if p.Addr().Is6() {
				shortest = 7
			}
			d.wrong(at, p.String()+" covers much of the internet: an open relay",
				fmt.Sprintf("list your own networks, with a prefix length of at least %d, or let clients log in: auth: required", shortest))
		case len(l.AllowNetworks) == 0:
			d.advise(at, p.String()+" covers much of the internet: an open relay", "list in allow_networks who may connect")
		}
	}
	if l.Auth == "required" && len(l.TrustedNetworks) > 0 {
		d.wrong(key+".trusted_networks", "let clients send without logging in, which auth: required forbids",
			"remove them, or set auth: optional")
	}
	if l.Auth == "required" && len(l.RelayDomains) > 0 {
		d.wrong(key+".relay_domains", "take mail from servers that do not log in, which auth: required forbids",
			"set auth: optional, or give them a listener of their own")
	}
	d.checkDomains(key+".relay_domains", l.RelayDomains, func(string) (string, bool) { return "", false })
}

// checkDomains checks a list of "example.com" and "*.example.com" and brings each into the form that domains are compared
// in. taken says where a pattern stands already.
func (d *decoder) checkDomains(key string, list []string, taken func(string) (string, bool)) {
	for i, pattern := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		domain, below := strings.CutPrefix(pattern, "*.")
		ascii, err := smtp.DomainToASCII(domain)
		if err != nil || !hostPattern.MatchString(ascii) {
			what := " is not a domain pattern"
			if pattern == "*" {
				what = " is every domain there is"
			}
			d.wrong(at, strconv.Quote(pattern)+what, `write "example.com" or "*.example.com"`)
			continue
		}
		if below {
			ascii = "*." + ascii
		}
		if slices.Contains(list[:i], ascii) {
			d.wrong(at, strconv.Quote(pattern)+" is given twice", "keep one of them")
			continue
		}
		if where, is := taken(ascii); is {
			d.wrong(at, strconv.Quote(pattern)+" is also in "+where, "a domain belongs to one of them")
			continue
		}
		list[i] = ascii
	}
}

func (d *decoder) checkTLS() {
	c := d.cfg
	names := make(map[string]int)
	for i, p := range c.TLS.Certificates {
		key := fmt.Sprintf("tls.certificates[%d]", i)
		switch first, twice := names[p.Name]; {
		case p.Name == "":
			d.missing(key, "name", "is missing", "give the certificate a short name, such as main")
		case !wordPattern.MatchString(p.Name):
			d.wrong(key+".name", strconv.Quote(p.Name)+" is not a short name", shortName)
		case twice:
			d.wrong(key+".name", fmt.Sprintf("%q is also the name of tls.certificates[%d]", p.Name, first), "give each its own name")
		default:
			names[p.Name] = i
		}
		for name, file := range map[string]string{"certificate": p.Certificate, "key": p.Key} {
			switch {
			case file == "":
				example := map[string]string{"certificate": "cert.pem", "key": "key.pem"}[name]
				d.missing(key, name, "is missing", "name the file (PEM), such as /etc/godwit/tls/"+example)
			case !filepath.IsAbs(file):
				d.notAbsolute(key+"."+name, file)
			}
		}
	}
	d.checkACME(&c.TLS.ACME)
}

func (d *decoder) checkACME(a *ACME) {
	const key = "tls.acme"
	d.checkDomains(key+".domains", a.Domains, func(string) (string, bool) { return "", false })
	if len(a.Domains) == 0 {
		return
	}
	d.checkURL(key+".directory", a.Directory, "https://acme-v02.api.letsencrypt.org/directory")
	for name, file := range map[string]string{"ca": a.CA, "dns_secret_file": a.DNSSecretFile} {
		if file != "" && !filepath.IsAbs(file) {
			d.notAbsolute(key+"."+name, file)
		}
	}
	if a.Challenge != "dns-01" {
		d.checkAddress(key+".listen", a.Listen, "[::]:80")
		for i, name := range a.Domains {
			if strings.HasPrefix(name, "*.") {
				d.wrong(fmt.Sprintf("%s.domains[%d]", key, i), "a certificate for everything below a name is given by dns-01 alone",
					"set challenge: dns-01, or name the hosts")
			}
		}
		return
	}
	if a.DNSSecretFile == "" {
		d.missing(key, "dns_secret_file", "is missing, so no record could be set", "name the file with the TSIG key or the API token")
	}
	if a.DNSProvider == "rfc2136" && (a.DNSServer == "" || a.DNSKeyName == "") {
		d.missing(key, "dns_server", "or dns_key_name is missing",
			`name the server that takes updates and the key, such as dns_server: "192.0.2.53:53" and dns_key_name: godwit`)
	}
}

func (d *decoder) checkURL(key, text, example string) {
	if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" {
		d.wrong(key, strconv.Quote(text)+" is not an https URL", "write it whole, such as "+example)
	}
}

const shortName = "use up to 32 lower-case letters, digits, hyphens and underscores"

func (d *decoder) checkTenants() {
	ids, owners := make(map[string]int), make(map[string]string)
	for i := range d.cfg.Tenants {
		t := &d.cfg.Tenants[i]
		key := fmt.Sprintf("tenants[%d]", i)
		switch first, twice := ids[t.ID]; {
		case t.ID == "":
			d.missing(key, "id", "is missing", "give the tenant a short name, such as shop")
		case !wordPattern.MatchString(t.ID):
			d.wrong(key+".id", strconv.Quote(t.ID)+" is not a short name", shortName)
		case twice:
			d.wrong(key+".id", fmt.Sprintf("%q is also the id of tenants[%d]", t.ID, first), "give each tenant its own id")
		default:
			ids[t.ID] = i
		}
		d.checkDomains(key+".domains", t.Domains, func(name string) (string, bool) {
			where, is := owners[name]
			return where, is
		})
		for _, name := range t.Domains {
			owners[name] = key
		}
		d.checkQuota(key+".quota", &t.Quota)
	}
	d.checkQuota("quotas.tenant", &d.cfg.Quotas.Tenant)
	d.checkQuota("quotas.credential", &d.cfg.Quotas.Credential)
	d.checkQuota("quotas.client", &d.cfg.Quotas.Client)
}

// checkQuota advises against numbers that never count.
func (d *decoder) checkQuota(key string, q *Quota) {
	for _, w := range []struct {
		name              string
		minute, hour, day int64
	}{
		{"messages", int64(q.MessagesPerMinute), int64(q.MessagesPerHour), int64(q.MessagesPerDay)},
		{"recipients", int64(q.RecipientsPerMinute), int64(q.RecipientsPerHour), int64(q.RecipientsPerDay)},
		{"bytes", int64(q.BytesPerMinute), int64(q.BytesPerHour), int64(q.BytesPerDay)},
		{"unique_recipients", int64(q.UniqueRecipientsPerMinute), int64(q.UniqueRecipientsPerHour), int64(q.UniqueRecipientsPerDay)},
	} {
		if w.hour > 0 && w.minute > w.hour {
			d.advise(key+"."+w.name+"_per_minute", "is above the limit of an hour, so it never counts", "lower it, or leave it out")
		}
		if w.day > 0 && max(w.minute, w.hour) > w.day {
			d.advise(key+"."+w.name+"_per_day", "is below the limit of an hour or minute, which never counts",
				"raise it, or leave the other out")
		}
	}
}

func (d *decoder) checkAuth() {
	names := make(map[string]int)
	for i, o := range d.cfg.Auth.OAuth {
		key := fmt.Sprintf("auth.oauth[%d]", i)
		switch first, twice := names[o.Name]; {
		case o.Name == "":
			d.missing(key, "name", "is missing", "give the issuer a short name, such as corp")
		case !wordPattern.MatchString(o.Name):
			d.wrong(key+".name", strconv.Quote(o.Name)+" is not a short name", shortName)
		case twice:
			d.wrong(key+".name", fmt.Sprintf("%q is also the name of auth.oauth[%d]", o.Name, first), "give each its own name")
		default:
			names[o.Name] = i
		}
		if o.Issuer == "" {
			d.missing(key, "issuer", "is missing", "write the URL that stands in the tokens, such as https://login.example.com")
		} else {
			d.checkURL(key+".issuer", o.Issuer, "https://login.example.com")
		}
		for name, text := range map[string]string{"jwks": o.JWKS, "introspection": o.Introspection} {
			if text != "" {
				d.checkURL(key+"."+name, text, "https://login.example.com/"+name)
			}
		}
		if o.Audience == "" && o.Introspection == "" {
			d.missing(key, "audience", "is missing, so a token made for any other service would do", "write what \"aud\" of the tokens says")
		}
		for name, file := range map[string]string{"client_secret_file": o.ClientSecretFile, "ca": o.CA} {
			if file != "" && !filepath.IsAbs(file) {
				d.notAbsolute(key+"."+name, file)
			}
		}
		if o.Introspection != "" && (o.ClientID == "" || o.ClientSecretFile == "") {
			d.missing(key, "client_id", "or client_secret_file is missing, and introspection asks who asks", "add both")
		}
	}
}
