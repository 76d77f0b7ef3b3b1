package inbound

import (
	"strings"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dmarc"
	"github.com/godwit-mta/godwit/mailauth/spf"
	"github.com/godwit-mta/godwit/smtp"
)

// Mode is what a listener does about what checks find.
type Mode uint8

// The modes.
const (
	Off    Mode = iota // nothing is checked
	Report             // findings are told: events, log, metrics
	Mark               // and stand in the message
	Reject             // and mail is refused that its author's domain wants refused
)

func refusal(code int, subject, detail uint16, text string) smtp.Reply {
	return smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: uint16(code / 100), Subject: subject, Detail: detail}, Text: text}
}

// The refusals. Codes are those of RFC 7372, 3, and of RFC 7505, 4.2; for DMARC, the one of RFC 9989, 7.2.
func replyDMARC() smtp.Reply {
	return refusal(550, 7, 1, "Rejected by DMARC: the message fails it, and the policy of the domain in From is reject")
}

func replyUnclear() smtp.Reply {
	return refusal(550, 7, 1, "Rejected by DMARC: From is missing, stands there twice or is not a plain list of addresses")
}

func replySPF() smtp.Reply {
	return refusal(550, 7, 23, "Rejected by SPF: the sender's domain does not let this host send for it")
}

func replyNoMail() smtp.Reply {
	return refusal(550, 7, 27, "Rejected: the sender's domain says that it takes no mail, so nobody could answer (null MX)")
}

func replySPFLater() smtp.Reply {
	return refusal(451, 7, 24, "Could not check now whether this host may send for the sender's domain (SPF), try again later")
}

func replyLater() smtp.Reply {
	return refusal(451, 4, 3, "Could not check now who the message is from (DMARC), try again later")
}

// Decision is what becomes of a message, a closed set.
type Decision string

// The decisions.
const (
	Taken         Decision = "taken"
	VouchedFor    Decision = "vouched_for"    // it would have been refused, but a trusted sealer says that it passed
	RefusedDMARC  Decision = "refused_dmarc"  // its author's domain wants it refused
	RefusedAuthor Decision = "refused_author" // nobody can say who its author is
	RefusedSPF    Decision = "refused_spf"
	RefusedNoMail Decision = "refused_null_mx"
	PutOff        Decision = "put_off" // something that matters could not be found out now
)

// Decisions lists all decisions.
func Decisions() []Decision {
	return []Decision{Taken, VouchedFor, RefusedDMARC, RefusedAuthor, RefusedSPF, RefusedNoMail, PutOff}
}

// Decide says what becomes of a message. The zero reply takes it.
func (c *Checker) Decide(m Mode, f *Findings) (smtp.Reply, Decision) {
	reply, d := smtp.Reply{}, Taken
	if m == Reject {
		reply, d = decide(c.settings.Load(), f)
	}
	c.metrics.decisions[d].Inc()
	return reply, d
}

func decide(s *settings, f *Findings) (smtp.Reply, Decision) {
	v := &f.DMARC
	switch {
	case f.Skipped:
		return replyLater(), PutOff
	case f.Authors.Unclear:
		return replyUnclear(), RefusedAuthor
	case f.NoMail:
		return replyNoMail(), RefusedNoMail
	case v.Result == dmarc.Fail && v.Disposition == dmarc.PolicyReject && f.Sealer != "":
		return smtp.Reply{}, VouchedFor
	case v.Result == dmarc.Fail && v.Disposition == dmarc.PolicyReject:
		return replyDMARC(), RefusedDMARC
	case v.Result == dmarc.TempError && (v.Record == nil || v.Policy == dmarc.PolicyReject && !v.Record.Testing):
		if f.SPF.Status == spf.TempError {
			return replySPFLater(), PutOff
		}
		return replyLater(), PutOff
	case s.RejectSPF && v.Result == dmarc.None && f.SPF.Status == spf.Fail:
		return replySPF(), RefusedSPF
	case s.RejectSPF && v.Result == dmarc.None && f.SPF.Status == spf.TempError:
		return replySPFLater(), PutOff
	}
	return smtp.Reply{}, Taken
}

// vouched looks for a relay whose word counts and who says that the message passed DMARC there, for the same author. From the
// newest seal on, each sealer must be trusted: one that is not could have changed the message and said that it did not. A
// relay that does not say so itself may say that the chain before it held (RFC 8617, 5.2, 7.2).
func (c *Checker) vouched(f *Findings) string {
	if f.ARC.Status != arc.Pass || len(f.ARC.Results) != len(f.ARC.Sealers) {
		return ""
	}
	s := c.settings.Load()
	for i := len(f.ARC.Sealers) - 1; i >= 0 && s.trusted[f.ARC.Sealers[i]]; i-- {
		_, list, err := authres.Parse(f.ARC.Results[i])
		if err != nil {
			return ""
		}
		whole := false
		for j := range list {
			r := &list[j]
			switch {
			case r.Value != "pass":
			case r.Method == "dmarc":
				if from, ok := r.Property("header", "from"); ok && strings.EqualFold(from, f.Author) {
					return f.ARC.Sealers[i]
				}
			case r.Method == "arc":
				whole = true
			}
		}
		if !whole {
			return ""
		}
	}
	return ""
}
