package event

import "fmt"

// Class says what a failure meant, whatever the remote's wording: the bounce class. The list is closed; names are
// stable. The zero value means that nothing failed and is not written; ClassUnknown means that something failed and
// nobody knows why.
type Class uint8

const (
	_ Class = iota

	// About the recipient.
	ClassNoSuchUser          // the mailbox does not exist
	ClassNoSuchDomain        // the domain does not exist or takes no mail
	ClassMailboxInactive     // disabled, dormant or moved
	ClassMailboxFull         // over quota
	ClassRecipientRestricted // takes mail only from some senders
	ClassRecipientRate       // this mailbox is sent too much
	ClassTooManyRecipients   // too many recipients in one transaction

	// About us as a source.
	ClassGreylisted         // unknown for now, come again
	ClassRateLimited        // too fast or too much
	ClassTooManyConnections // too many sessions at once
	ClassSessionLimit       // enough messages in this session
	ClassReputation         // deferred for complaints or reputation
	ClassBlocked            // blocked by the receiver
	ClassBlocklisted        // blocked since a public list names us
	ClassHostIdentity       // reverse DNS or EHLO name not acceptable
	ClassRelayDenied        // the remote does not relay for us

	// About the sender's domain.
	ClassAuthentication // SPF, DKIM or DMARC missing or failed
	ClassSenderRefused  // sender address or its domain not acceptable

	// About the message.
	ClassSpam    // taken for spam or phishing
	ClassPolicy  // refused by a local policy, unexplained
	ClassVirus   // malware
	ClassContent // form, attachment or encoding not acceptable
	ClassSize    // too large
	ClassLoop    // too many hops

	// About the remote and the way there.
	ClassTLSRequired // the remote wants an encrypted session
	ClassBusy        // short of resources or out of service for now
	ClassProtocol    // did not speak or understand SMTP as expected
	ClassDNS         // DNS gave no way there
	ClassConnection  // connection not made or lost

	ClassLocal   // a decision or failure of this server
	ClassUnknown // nothing known matched
	ClassTLS     // encryption or proof of identity that is demanded here is missing
)

// classes holds name and sentence of each Class; the index is the Class.
var classes = [...]struct{ name, text string }{
	ClassNoSuchUser:          {"no_such_user", "The mailbox does not exist."},
	ClassNoSuchDomain:        {"no_such_domain", "The domain does not exist or takes no mail."},
	ClassMailboxInactive:     {"mailbox_inactive", "The mailbox is disabled, dormant or moved."},
	ClassMailboxFull:         {"mailbox_full", "The mailbox is over its quota."},
	ClassRecipientRestricted: {"recipient_restricted", "The mailbox takes mail only from some senders."},
	ClassRecipientRate:       {"recipient_rate", "The mailbox receives too much mail at the moment."},
	ClassTooManyRecipients:   {"too_many_recipients", "The remote takes no more recipients in one transaction."},
	ClassGreylisted:          {"greylisted", "The remote does not know this sender yet and asks for a retry."},
	ClassRateLimited:         {"rate_limited", "The remote says that too much arrives from here."},
	ClassTooManyConnections:  {"too_many_connections", "The remote takes no more sessions from here at once."},
	ClassSessionLimit:        {"session_limit", "The remote takes no more messages in this session."},
	ClassReputation:          {"reputation", "The remote slows this source down for complaints or bad reputation."},
	ClassBlocked:             {"blocked", "The remote blocks this source."},
	ClassBlocklisted:         {"blocklisted", "A public blocklist names this source."},
	ClassHostIdentity: {"host_identity",
		"Reverse DNS or EHLO name of this source is not acceptable to the remote."},
	ClassRelayDenied:    {"relay_denied", "The remote does not take mail for this recipient from here."},
	ClassAuthentication: {"authentication", "SPF, DKIM or DMARC of the sender's domain is missing or failed."},
	ClassSenderRefused:  {"sender_refused", "The sender address or its domain is not acceptable to the remote."},
	ClassSpam:           {"spam", "The remote takes the message for spam or phishing."},
	ClassPolicy:         {"policy", "A local policy of the remote, which it does not explain."},
	ClassVirus:          {"virus", "The remote found malware in the message."},
	ClassContent:        {"content", "Form, attachment or encoding of the message is not acceptable to the remote."},
	ClassSize:           {"size", "The message is too large for the remote."},
	ClassLoop:           {"loop", "The message has passed too many servers or comes back."},
	ClassTLSRequired:    {"tls_required", "The remote wants an encrypted session."},
	ClassBusy:           {"busy", "The remote is short of resources or out of service for now."},
	ClassProtocol:       {"protocol", "The remote did not speak or understand SMTP as expected."},
	ClassDNS:            {"dns", "DNS gave no way to the remote."},
	ClassConnection:     {"connection", "The connection was not made or was lost."},
	ClassLocal:          {"local", "A decision or a failure of this server."},
	ClassUnknown:        {"unknown", "The failure matches nothing known."},
	ClassTLS:            {"tls", "The encryption or the proof of identity that is demanded of the remote is missing."},
}

// Classes returns all classes in their order of declaration.
func Classes() []Class {
	all := make([]Class, 0, len(classes)-1)
	for c := ClassNoSuchUser; int(c) < len(classes); c++ {
		all = append(all, c)
	}
	return all
}

// String returns the stable snake_case name, empty for the zero value.
func (c Class) String() string {
	if int(c) < len(classes) {
		return classes[c].name
	}
	return ""
}

// Explain returns one sentence for people, empty for the zero value.
func (c Class) Explain() string {
	if int(c) < len(classes) {
		return classes[c].text
	}
	return ""
}

// ParseClass returns the class with this name.
func ParseClass(name string) (Class, error) {
	for c := ClassNoSuchUser; int(c) < len(classes); c++ {
		if classes[c].name == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("event: no class %q", name)
}

// MarshalText implements [encoding.TextMarshaler].
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text gives the zero value.
func (c *Class) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*c = 0
		return nil
	}
	*c, err = ParseClass(string(text))
	return err
}
