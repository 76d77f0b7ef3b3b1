package inbound

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
	"github.com/godwit-mta/godwit/mailauth/dmarc"
	"github.com/godwit-mta/godwit/mailauth/spf"
	"github.com/godwit-mta/godwit/smtp"
)

// Findings are what a check found.
type Findings struct {
	Client  netip.Addr
	Hello   string
	From    smtp.Path
	Authors Authors

	SPF     spf.Result // of the sender, or of the client's own name if the sender is null
	HELO    spf.Result // of the client's own name; zero if the sender is null
	DKIM    []dkim.Result
	ARC     arc.Chain
	Reverse Reverse
	NoMail  bool // the sender's domain says that it takes no mail (RFC 7505)

	DMARC  dmarc.Verdict
	Author string // the author's domain that DMARC was asked for
	Sealer string // a relay that is trusted and says that the message passed DMARC when it came there; empty: none
	// Skipped says that there was no place for a check.
	Skipped bool

	dkimErr, arcErr error
}

// Reverse is whether an address has a name that has the address (RFC 8601, 3).
type Reverse struct {
	Status string // "pass", "fail", "temperror", "permerror"; empty: there is no address
	Name   string // of Pass
}

// ErrSkipped says that there were too many checks in flight.
var ErrSkipped = errors.New("inbound: too many checks in flight")

// notChecked fills in that nothing could be found out now.
func (f *Findings) notChecked() {
	f.Skipped = true
	sender := senderOf(f.From)
	f.SPF = spf.Result{Status: spf.TempError, Domain: sender[strings.LastIndexByte(sender, '@')+1:], Err: ErrSkipped}
	if sender == "" {
		f.SPF.HELO, f.SPF.Domain = true, f.Hello
	}
	f.ARC = arc.Chain{Status: arc.None}
	f.dkimErr = ErrSkipped
	f.DMARC = dmarc.Verdict{Result: dmarc.TempError, Policy: dmarc.PolicyNone, Disposition: dmarc.PolicyNone, Err: ErrSkipped}
	if len(f.Authors.Domains) > 0 {
		f.Author = f.Authors.Domains[0]
	}
}

// dmarcResult is the word for DMARC's result (RFC 9989, 9.2): an author that cannot be told is an error for good.
func (f *Findings) dmarcResult() string {
	if f.Authors.Unclear {
		return "permerror"
	}
	return string(f.DMARC.Result)
}

// Append appends the Authentication-Results field, with its line end.
func (f *Findings) Append(dst []byte, authserv string) ([]byte, error) {
	return authres.Append(dst, authserv, f.Results())
}

// Results returns the findings as they stand in an Authentication-Results field.
func (f *Findings) Results() []authres.Result {
	list := make([]authres.Result, 0, 6+len(f.DKIM))
	list = append(list, f.spfResult(&f.SPF))
	if f.HELO.Status != "" {
		list = append(list, f.spfResult(&f.HELO))
	}
	list = append(list, f.dkimResults()...)
	d := authres.Result{Method: "dmarc", Value: f.dmarcResult()}
	if f.Author != "" {
		d.Properties = append(d.Properties, authres.Property{Type: "header", Name: "from", Value: f.Author})
	}
	if f.DMARC.Record != nil {
		d.Properties = append(d.Properties, authres.Property{Type: "polrec", Name: "p", Value: string(f.DMARC.Record.Policy)})
		if f.DMARC.Domain != f.Author {
			d.Properties = append(d.Properties, authres.Property{Type: "polrec", Name: "domain", Value: f.DMARC.Domain})
		}
	}
	switch {
	case f.Authors.Unclear:
		d.Reason = "it is not clear who the author is"
	case f.Sealer != "":
		d.Comment = "passed at " + f.Sealer
	case f.DMARC.Err != nil:
		d.Reason = reason(f.DMARC.Err)
	}
	list = append(list, d)
	if f.ARC.Status != arc.None || f.arcErr != nil {
		list = append(list, f.arcResult())
	}
	if f.Reverse.Status != "" {
		r := authres.Result{Method: "iprev", Value: f.Reverse.Status, Comment: f.Reverse.Name}
		r.Properties = []authres.Property{{Type: "policy", Name: "iprev", Value: f.Client.String()}}
		list = append(list, r)
	}
	return list
}

func (f *Findings) spfResult(r *spf.Result) authres.Result {
	out := authres.Result{Method: "spf", Value: string(r.Status)}
	if r.Err != nil {
		out.Reason = reason(r.Err)
	}
	p := authres.Property{Type: "smtp", Name: "helo", Value: f.Hello}
	if !r.HELO {
		p.Name, p.Value = "mailfrom", f.From.String()
	}
	if p.Value != "" {
		out.Properties = []authres.Property{p}
	}
	return out
}

func (f *Findings) dkimResults() []authres.Result {
	if f.dkimErr != nil {
		return []authres.Result{{Method: "dkim", Value: string(dkim.TempError), Reason: reason(f.dkimErr)}}
	}
	if len(f.DKIM) == 0 {
		return []authres.Result{{Method: "dkim", Value: "none"}}
	}
	var list []authres.Result
	for i := range f.DKIM {
		r := &f.DKIM[i]
		if i == dkim.MaxSignatures {
			break // the rest was not verified
		}
		out := authres.Result{Method: "dkim", Value: string(r.Status)}
		if r.Err != nil {
			out.Reason = reason(r.Err)
		}
		for _, p := range []authres.Property{
			{Type: "header", Name: "d", Value: r.Domain}, {Type: "header", Name: "s", Value: r.Selector},
			{Type: "header", Name: "a", Value: r.Algorithm}, {Type: "header", Name: "b", Value: r.B},
		} {
			if p.Value != "" {
				out.Properties = append(out.Properties, p)
			}
		}
		list = append(list, out)
	}
	return list
}

func (f *Findings) arcResult() authres.Result {
	out := authres.Result{Method: "arc", Value: string(f.ARC.Status)}
	switch {
	case f.arcErr != nil:
		out.Value, out.Reason = string(arc.Fail), reason(f.arcErr)
	case f.ARC.Err != nil:
		out.Reason = reason(f.ARC.Err)
	case len(f.ARC.Sealers) > 0:
		out.Comment = fmt.Sprintf("i=%d %s", f.ARC.Instances, f.ARC.Sealers[len(f.ARC.Sealers)-1])
	}
	if f.Client.IsValid() {
		out.Properties = []authres.Property{{Type: "smtp", Name: "remote-ip", Value: f.Client.String()}}
	}
	return out
}

// maxReason bounds why in a field.
const maxReason = 120

// reason returns an error's words without the name of the package in front.
func reason(err error) string {
	s := err.Error()
	for _, p := range []string{"spf: ", "dkim: ", "dmarc: ", "arc: ", "inbound: "} {
		s = strings.TrimPrefix(s, p)
	}
	return s[:min(len(s), maxReason)]
}

// maxShort bounds the short form.
const maxShort = 200

// String returns the findings in short: "spf=pass dkim=pass(example.org) dmarc=pass".
func (f *Findings) String() string {
	var b strings.Builder
	b.WriteString("spf=" + string(f.SPF.Status))
	if len(f.DKIM) == 0 {
		word := "none"
		if f.dkimErr != nil {
			word = string(dkim.TempError)
		}
		b.WriteString(" dkim=" + word)
	}
	for i := range f.DKIM {
		word := fmt.Sprintf(" dkim=%s(%s)", f.DKIM[i].Status, f.DKIM[i].Domain)
		if i == 4 || b.Len()+len(word) > maxShort {
			b.WriteString(" dkim=...")
			break
		}
		b.WriteString(word)
	}
	b.WriteString(" dmarc=" + f.dmarcResult())
	if f.DMARC.Record != nil && f.DMARC.Result == dmarc.Fail {
		b.WriteString("(" + string(f.DMARC.Policy) + ")")
	}
	if f.ARC.Status == arc.Pass || f.ARC.Status == arc.Fail {
		b.WriteString(" arc=" + string(f.ARC.Status))
	}
	return b.String()
}
