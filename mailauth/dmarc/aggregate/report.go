package aggregate

import (
	"net/netip"
	"time"
)

// Report is one aggregate report.
type Report struct {
	Version      string
	Organization string
	Email        string
	Contact      string // extra_contact_info
	ID           string
	Begin, End   time.Time
	Errors       []string // what the receiver had to complain of
	Generator    string   // RFC 9990

	Policy  Policy
	Records []Record
}

// Policy is what the domain had published as the receiver saw it. Values are in lower case.
type Policy struct {
	Domain          string
	DKIMAlignment   string // adkim: "r" or "s"
	SPFAlignment    string // aspf
	Policy          string // p: "none", "quarantine", "reject"
	Subdomains      string // sp
	NonExistent     string // np
	Percentage      string // pct, of RFC 7489
	FailureOptions  string // fo
	Testing         string // testing, of RFC 9990: "y" or "n"
	DiscoveryMethod string // of RFC 9990: "psl" or "treewalk"
}

// Record is one line of a report: messages that were alike.
type Record struct {
	Source      netip.Addr // the zero Addr if it is none
	Count       int64
	Disposition string // "none", "pass", "quarantine", "reject"
	DKIM        bool   // a signature held whose domain is aligned
	SPF         bool   // SPF passed for a domain that is aligned
	Reasons     []Reason

	HeaderFrom   string
	EnvelopeFrom string
	EnvelopeTo   string

	DKIMResults []DKIMResult
	SPFResults  []SPFResult
}

// Pass reports whether the messages passed DMARC.
func (r *Record) Pass() bool { return r.DKIM || r.SPF }

// Reason says why the policy was not applied.
type Reason struct {
	Type    string // "forwarded", "mailing_list", "local_policy", ...
	Comment string
}

// DKIMResult is what became of one signature.
type DKIMResult struct {
	Domain, Selector string
	Result           string // "pass", "fail", ...
	Text             string // human_result
}

// SPFResult is what SPF said.
type SPFResult struct {
	Domain string
	Scope  string // "mfrom" or "helo"
	Result string
	Text   string
}

// Totals counts messages, and those that passed.
func (r *Report) Totals() (messages, passed int64) {
	for i := range r.Records {
		messages += r.Records[i].Count
		if r.Records[i].Pass() {
			passed += r.Records[i].Count
		}
	}
	return messages, passed
}
