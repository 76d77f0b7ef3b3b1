package dsn

import (
	"mime"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// words returns the part for people: who did not get the message, why, and what can be done.
func (r *Report) words(o original) []byte {
	var p []byte
	say := func(text string) { p = append(fold(p, "", "", text), "\r\n"...) }
	say("This is the mail server " + clean(r.ReportingMTA, 255, true) + ".")
	say(r.opening(o))
	for i := range r.Recipients {
		if i == maxNamed {
			say("and more recipients, which the second part of this report lists.")
			break
		}
		p = append(r.appendRecipient(p, &r.Recipients[i]), "\r\n"...)
	}
	for _, advice := range r.advice() {
		say(advice)
	}
	switch {
	case o.reduced:
		say("Your message is too large to be returned whole. Its header follows.")
	case o.full:
		say("Your message follows.")
	case len(o.content) > 0:
		say("The header of your message follows.")
	}
	return p[:len(p)-2] // without the last empty line
}

func (r *Report) opening(o original) string {
	message := "Your message"
	if o.subject != "" {
		message += ` "` + o.subject + `"`
	}
	if !r.Arrival.IsZero() {
		message += ", received on " + day(r.Arrival) + ","
	}
	switch r.Action {
	case Failed:
		return message + " could not be delivered to the recipients below. It will not be tried again for them."
	case Delayed:
		return message + " has not been delivered to the recipients below yet. " +
			"Delivery is still being tried. You need not send it again."
	case Relayed:
		return message + " was passed on to a server that does not report successful delivery. " +
			"There will be no further report unless delivery fails."
	case Expanded:
		return message + " was delivered to the mailing lists below, which send it on."
	default:
		return message + " was delivered to the recipients below."
	}
}

func day(t time.Time) string { return t.Format("Monday, 2 January 2006 at 15:04 -0700") }

func (r *Report) appendRecipient(p []byte, rcpt *RecipientStatus) []byte {
	const indent = "    "
	action := r.action(rcpt)
	p = append(append(append(p, "  <"...), clean(rcpt.Final.String(), 500, true)...), ">\r\n"...)
	if action.class() == 2 {
		return p
	}
	if rcpt.Explanation != "" {
		p = fold(p, indent, indent, sentence(clean(rcpt.Explanation, maxReplyLine, true)))
	}
	if lines := replyLines(rcpt.Diagnostic, true); lines != nil {
		if rcpt.RemoteMTA == "" {
			p = append(append(p, indent...), "The answer was:\r\n"...)
		} else {
			p = fold(p, indent, indent, "The server "+clean(rcpt.RemoteMTA, 255, true)+" said:")
		}
		for _, l := range lines {
			p = fold(p, indent+"  ", indent+"  ", l)
		}
	} else if rcpt.Explanation == "" {
		p = append(append(p, indent...), "No reason is known.\r\n"...)
	}
	if action == Delayed && !rcpt.WillRetryUntil.IsZero() {
		p = fold(p, indent, indent, "It will be tried until "+day(rcpt.WillRetryUntil)+".")
	}
	return p
}

// sentence begins s with a capital, unless its first word is a name, and ends it with a period.
func sentence(s string) string {
	first, _, more := strings.Cut(s, " ")
	if more && 'a' <= s[0] && s[0] <= 'z' && !strings.ContainsAny(first, ".@") {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	if s == "" || strings.IndexByte(".!?", s[len(s)-1]) >= 0 {
		return s
	}
	return s + "."
}

// advice returns what the sender can do, once for each sort of failure there is.
func (r *Report) advice() []string {
	if r.Action != Failed {
		return nil
	}
	var out []string
	seen := make(map[string]bool)
	for i := range r.Recipients {
		rcpt := &r.Recipients[i]
		a := r.action(rcpt)
		if a != Failed {
			continue
		}
		if text := adviceFor(rcpt.status(a)); !seen[text] {
			seen[text] = true
			out = append(out, "What you can do: "+text)
		}
	}
	return out
}

// adviceFor goes by the subject of the code (RFC 3463, 3.2 to 3.8).
func adviceFor(code smtp.EnhancedCode) string {
	switch {
	case code.Subject == 1 && code.Detail == 10:
		return "this domain takes no mail at all. Reach the recipient at another address or in another way."
	case code.Subject == 1:
		return "check the address for typing mistakes, or ask the recipient in another way for the right one."
	case code.Subject == 2 && code.Detail == 2:
		return "the mailbox is full. Tell the recipient in another way, or send the message again later."
	case code.Subject == 2 && code.Detail == 3, code.Subject == 3 && code.Detail == 4:
		return "the message is too large for this recipient. Send it in smaller parts, or put large files elsewhere " +
			"and send a link."
	case code.Subject == 2:
		return "the mailbox takes no mail at the moment. Ask the recipient in another way, or try again later."
	case code.Subject == 3, code.Subject == 4:
		return "the recipient's server could not be reached or had trouble. Send the message again later; if it " +
			"fails again, check the part of the address after the @ sign or tell the recipient's administrator."
	case code.Subject == 5:
		return "the two mail servers did not understand each other. Show this report to your administrator."
	case code.Subject == 6:
		return "the recipient's server cannot take the message in the form it has. Send it in a plainer form, " +
			"without unusual characters in addresses and without special content."
	case code.Subject == 7:
		return "the recipient's server refused the message by its rules. Read what it said above; if it gives no " +
			"way to resolve it, show this report to your administrator or ask the recipient to allow your mail."
	}
	return "read what the recipient's server said above. If that does not help, show this report to your administrator."
}

// messageID returns the original's Message-ID if it is one that can stand in our header.
func messageID(h message.Header) string {
	v, _ := h.Get("Message-ID")
	if len(v) < 5 || len(v) > 500 || v[0] != '<' || v[len(v)-1] != '>' {
		return ""
	}
	for _, c := range v {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return string(v)
}

// subject returns the original's subject as people read it.
func subject(h message.Header) string {
	v, _ := h.Get("Subject")
	if len(v) > 1000 {
		v = v[:1000]
	}
	text := string(message.AppendUnfolded(nil, v))
	if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
		text = decoded
	}
	cleaned := clean(text, 120, true)
	if len(cleaned) >= 117 {
		cleaned += "..."
	}
	return cleaned
}
