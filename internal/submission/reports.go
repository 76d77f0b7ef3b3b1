package submission

import (
	"strings"

	"github.com/godwit-mta/godwit/smtp"
)

var replyReportSize = say(552, 3, 4, "Message too large: this address takes aggregate reports alone")

// Addresses is a set of mail addresses. The zero value is empty. Case counts for nothing: they are names that the operator gave.
type Addresses struct{ set map[string]struct{} }

// NewAddresses returns the set of a list. Domains are in the form of smtp.DomainToASCII.
func NewAddresses(list []smtp.Path) Addresses {
	a := Addresses{set: make(map[string]struct{}, len(list))}
	for _, p := range list {
		a.set[addressKey(p.Local, p.Domain)] = struct{}{}
	}
	return a
}

// Empty reports a set without addresses.
func (a *Addresses) Empty() bool { return len(a.set) == 0 }

// Has reports whether an address is in the set. The domain is in the form of smtp.DomainToASCII.
func (a *Addresses) Has(local, domain string) bool {
	if len(a.set) == 0 || len(local) > 255 {
		return false
	}
	_, ok := a.set[addressKey(local, domain)]
	return ok
}

func addressKey(local, domain string) string { return strings.ToLower(local) + "@" + domain }

// takesFrom decides on a stranger's recipient: one that anyone may send to, or that reports of others come to.
func (s *session) takesFrom(p *Policy, env *smtp.Envelope, local, domain string) smtp.Reply {
	if !p.Reports.Has(local, domain) {
		return p.takes(local, domain)
	}
	if p.ReportSize > 0 && env.From.Size > p.ReportSize {
		return replyReportSize
	}
	s.forReports = true
	return smtp.Reply{}
}

// tooLarge refuses a stranger's message to an address for reports that is larger than a report.
func (s *session) tooLarge(p *Policy, size int64) bool {
	return s.forReports && p.ReportSize > 0 && size > p.ReportSize
}
