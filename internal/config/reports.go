package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Reports is about aggregate reports: those that go out on TLS, and those that come in on TLS and DMARC.
type Reports struct {
	// The name of who reports, such as "Example Ltd". Default: hostname.
	Organization string `yaml:"organization"`

	// The address of who answers questions about reports, and their sender: its domain needs a DKIM key. Empty: no reports
	// go out.
	Contact string `yaml:"contact"`

	// Whether domains that ask for it are told every day what TLS to their mail hosts came to (RFC 8460). Only with a contact.
	TLS bool `yaml:"tls"`

	// Addresses that reports of others come to, such as tlsrpt@example.com: every listener that does not require a login takes mail
	// for exactly these from anyone, and the server reads it itself. Publish them in your TLSRPT and DMARC records.
	Addresses []string `yaml:"addresses"`

	// Largest message taken for one of the addresses from somebody who may not send otherwise.
	MaxSize Size `yaml:"max_size" range:"64KiB..1GiB"`

	// How long reports are kept.
	Keep time.Duration `yaml:"keep" range:"1d..3660d"`
}

// DefaultReports is what the file has where it says nothing.
func DefaultReports() Reports {
	return Reports{TLS: true, MaxSize: 10 * MiB, Keep: 90 * 24 * time.Hour}
}

// Paths returns the addresses in parts, the domains in A-labels.
func (r *Reports) Paths() []smtp.Path {
	var list []smtp.Path
	for _, a := range r.Addresses {
		if p, ok := reportAddress(a); ok {
			list = append(list, p)
		}
	}
	return list
}

func reportAddress(s string) (smtp.Path, bool) {
	p, err := smtp.ParseMailbox(s)
	if err != nil || p.Local == "" || strings.ContainsAny(p.Local, "@%!\"") || strings.HasPrefix(p.Domain, "[") {
		return p, false
	}
	p.Domain, err = smtp.DomainToASCII(p.Domain)
	return p, err == nil
}

func (d *decoder) checkReports() {
	r := &d.cfg.Reports
	if r.Contact != "" {
		if _, ok := reportAddress(r.Contact); !ok {
			d.wrong("reports.contact", strconv.Quote(r.Contact)+" is not a mail address", "write one such as postmaster@example.com")
		}
	}
	if strings.ContainsFunc(r.Organization, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		d.wrong("reports.organization", "has a control character", "write a plain name")
	}
	for i, a := range r.Addresses {
		key := fmt.Sprintf("reports.addresses[%d]", i)
		if _, ok := reportAddress(a); !ok {
			d.wrong(key, strconv.Quote(a)+" is not a plain mail address", "write one such as tlsrpt@example.com")
			continue
		}
		if slices.IndexFunc(r.Addresses, func(o string) bool { return strings.EqualFold(o, a) }) != i {
			d.wrong(key, a+" is given twice", "keep one of them")
		}
	}
	open := slices.ContainsFunc(d.cfg.Listeners, func(l Listener) bool { return l.Auth != "required" })
	if len(r.Addresses) > 0 && !open && len(d.cfg.Listeners) > 0 {
		d.advise("reports.addresses", "are taken by no listener, since all require a login", "add a listener with auth: off or auth: optional")
	}
}
