package config

import (
	"fmt"
	"strconv"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Inbound says how mail from outside is checked, on listeners whose key verify asks for it.
type Inbound struct {
	// Domains (d=) whose ARC seals are believed: mail that fails DMARC here and passed there, as such a seal says, is not
	// refused. For mailing lists and forwarders that you trust.
	TrustedSealers []string `yaml:"trusted_sealers"`

	// Whether "verify: reject" refuses, too, what fails SPF where the domain in From has no DMARC policy.
	RejectSPF bool `yaml:"reject_spf"`

	// Sealing of mail to relay_domains that is passed on (ARC, RFC 8617).
	ARC ARC `yaml:"arc"`

	// Most checks at once, over all listeners. Mail that waits longer than 2 seconds for its turn is not checked: it is marked
	// "temperror", or put off where "verify: reject" holds.
	ChecksInFlight int `yaml:"checks_in_flight" range:"1..100000" restart:"yes"`

	// How long the DNS lookups of one check may take (RFC 7208, 4.6.4, asks for 20 seconds at least).
	Timeout time.Duration `yaml:"timeout" range:"1s..2m" restart:"yes"`
}

// ARC says who seals.
type ARC struct {
	// The domain whose DKIM key seals. Empty: nothing is sealed.
	Domain string `yaml:"domain"`

	// The selector of the key. Empty: an RSA key of the domain that signs now.
	Selector string `yaml:"selector"`
}

// VerifyMode returns what a listener does about mail from outside: "auto" is "mark" where anyone may send to relay_domains, and
// "off" elsewhere.
func (l *Listener) VerifyMode() string {
	switch {
	case l.Verify != "" && l.Verify != "auto":
		return l.Verify
	case len(l.RelayDomains) > 0:
		return "mark"
	}
	return "off"
}

func (d *decoder) checkInbound() {
	in := &d.cfg.Inbound
	for i, name := range in.TrustedSealers {
		key := fmt.Sprintf("inbound.trusted_sealers[%d]", i)
		ascii, err := smtp.DomainToASCII(name)
		if err != nil || !hostPattern.MatchString(ascii) {
			d.wrong(key, strconv.Quote(name)+" is not a domain", "write the d= of the seals, such as lists.example.org")
			continue
		}
		in.TrustedSealers[i] = ascii
	}
	if in.ARC.Domain != "" {
		ascii, err := smtp.DomainToASCII(in.ARC.Domain)
		if err != nil || !hostPattern.MatchString(ascii) {
			d.wrong("inbound.arc.domain", strconv.Quote(in.ARC.Domain)+" is not a domain", "write the domain of a DKIM key, such as example.com")
		} else {
			in.ARC.Domain = ascii
		}
	} else if in.ARC.Selector != "" {
		d.wrong("inbound.arc.selector", "is of no use without a domain", "add inbound.arc.domain")
	}
	if in.Timeout < 20*time.Second {
		d.advise("inbound.timeout", FormatDuration(in.Timeout)+" is less than the 20 seconds that RFC 7208 asks for",
			"raise it, or expect mail of slow domains to be marked temperror")
	}
	refuses := false
	for i := range d.cfg.Listeners {
		l := &d.cfg.Listeners[i]
		refuses = refuses || l.Verify == "reject"
		if (l.Verify == "report" || l.Verify == "mark" || l.Verify == "reject") && len(l.RelayDomains) == 0 {
			d.advise(fmt.Sprintf("listeners[%d].verify", i), "checks mail from outside, and this listener takes none but reports",
				"add relay_domains, or leave it out")
		}
	}
	if in.RejectSPF && !refuses {
		d.advise("inbound.reject_spf", "changes nothing while no listener refuses", "set verify: reject on the listeners that are to refuse")
	}
}
