package event

import "fmt"

// Reason says why an entry or a message moved, in terms of what Godwit did or saw. The list is closed; names and
// numbers are stable (records on disk hold them), so that a new one goes to the end. The zero value means that no
// reason applies and is not written.
type Reason uint8

const (
	_ Reason = iota

	// Acceptance.
	Submitted       // a client submitted the message
	ReportGenerated // the message is a report of ours

	// What the remote said.
	OK             // the remote accepted
	RemoteRefused  // a permanent reply
	RemoteDeferred // a temporary reply
	Greylisted     // a temporary reply that asks for one retry later
	RateLimited    // a reply that says we send too fast or too much
	SessionRefused // the remote refused the session in its greeting or at EHLO
	SessionClosed  // the remote ended the session with 421

	// How the connection fared.
	ConnectionRefused  // nothing listens there
	ConnectionTimeout  // no connection within the limit
	NetworkUnreachable // no way to that address from here
	ConnectionFailed   // a connection failed for another reason
	ConnectionLost     // the connection broke before a decision was received
	ReplyTimeout       // the remote stopped answering
	ProtocolError      // the remote answered something that is not SMTP

	// What DNS said.
	DNSTemporary    // no usable answer from DNS for now
	DNSNXDomain     // the domain does not exist
	DNSNullMX       // the domain accepts no mail (RFC 7505)
	DNSNoAddress    // the domain or its mail servers have no address
	DNSMalformed    // DNS holds something that cannot be followed, such as a loop of aliases
	NoUsableAddress // all addresses are private, loopback or otherwise forbidden
	Loop            // the mail would come back to this server

	// What the remote cannot take.
	SizeExceeded         // larger than the remote's limit
	UTF8Unsupported      // needs SMTPUTF8
	EightBitUnsupported  // needs 8BITMIME
	TooManyRecipients    // more recipients than the remote takes at once
	ExtensionUnsupported // needs another service extension

	// What Godwit or its operator decided.
	Suspended          // the destination is suspended after failures
	Aged               // older than the maximum age
	Operator           // an operator asked for it
	Rule               // a rule set by an operator applied
	SuppressionListed  // the recipient is on a suppression list
	DelayNotice        // the sender was told of a delay
	Interrupted        // the server stopped or crashed while the attempt was under way
	Drained            // the server is stopping; the attempt was not begun
	LocalError         // this server could not do its part, such as reading the message back
	RelayDenied        // the client may not send there
	InvalidSender      // the sender address is not acceptable
	InvalidRecipient   // the recipient address is not acceptable
	InvalidMessage     // the message breaks the rules of its form
	LimitExceeded      // a limit of this server was reached
	StorageUnavailable // this server could not store the message
	ClientLost         // the client went away before the end
	Unauthenticated    // checks of who the message is from fail, and its author's domain or the operator wants it refused then
	NotSigned          // the message must be signed, and no key could

	// TLS on the way out.
	TLSRequired           // TLS is demanded and could not be had
	TLSUntrusted          // the host did not prove to be the one that was meant
	TLSPolicy             // the domain's policy does not let this host be used
	TLSDowngrade          // TLS used to work there and could not be had
	RequireTLSUnsupported // the message requires TLS all the way (RFC 8689)
	LoginFailed           // a smart host did not take our login

	ReportTaken // the message is a report of others, for this server to read
)

// reasons holds name and sentence of each Reason; the index is the Reason.
var reasons = [...]struct{ name, text string }{
	Submitted:       {"submitted", "A client submitted the message."},
	ReportGenerated: {"report_generated", "The message is a delivery report made by this server."},

	OK:             {"ok", "The remote server accepted the message for this recipient."},
	RemoteRefused:  {"remote_refused", "The remote server refused with a permanent reply."},
	RemoteDeferred: {"remote_deferred", "The remote server answered with a temporary failure."},
	Greylisted:     {"greylisted", "The remote server asks unknown senders to try again later."},
	RateLimited:    {"rate_limited", "The remote server says that too much is sent to it."},
	SessionRefused: {"session_refused", "The remote server refused the session before any message was offered."},
	SessionClosed:  {"session_closed", "The remote server ended the session with reply 421."},

	ConnectionRefused:  {"connection_refused", "The remote host refused the connection: no mail server listens there."},
	ConnectionTimeout:  {"connection_timeout", "The remote host did not answer the connection request in time."},
	NetworkUnreachable: {"network_unreachable", "There is no network path to the remote host."},
	ConnectionFailed:   {"connection_failed", "The connection to the remote host could not be made."},
	ConnectionLost:     {"connection_lost", "The connection broke before the remote server's decision was received."},
	ReplyTimeout:       {"reply_timeout", "The remote server stopped answering."},
	ProtocolError:      {"protocol_error", "The remote server answered something that is not SMTP."},

	DNSTemporary:    {"dns_temporary", "DNS gave no usable answer for now."},
	DNSNXDomain:     {"dns_nxdomain", "The recipient's domain does not exist."},
	DNSNullMX:       {"dns_null_mx", "The recipient's domain declares that it accepts no mail."},
	DNSNoAddress:    {"dns_no_address", "The recipient's domain has no mail server with an address."},
	DNSMalformed:    {"dns_malformed", "The DNS records of the recipient's domain cannot be followed."},
	NoUsableAddress: {"no_usable_address", "All addresses of the domain's mail servers are private or not to be used."},
	Loop:            {"loop", "The mail would come back to this server."},

	SizeExceeded:        {"size_exceeded", "The message is larger than the remote server takes."},
	UTF8Unsupported:     {"utf8_unsupported", "The message needs SMTPUTF8, which the remote server does not offer."},
	EightBitUnsupported: {"8bit_unsupported", "The message needs 8BITMIME, which the remote server does not offer."},
	TooManyRecipients:   {"too_many_recipients", "The remote server takes no more recipients at once."},
	ExtensionUnsupported: {"extension_unsupported",
		"The message needs a service extension that the remote server does not offer."},

	Suspended:          {"suspended", "The destination is suspended after repeated failures and will be probed again."},
	Aged:               {"expired", "The message grew older than its maximum age."},
	Operator:           {"operator", "An operator asked for it."},
	Rule:               {"rule", "A rule set by an operator applied."},
	SuppressionListed:  {"suppression_listed", "The recipient is on a list of those who must not be mailed."},
	DelayNotice:        {"delay_notice", "The sender was told that delivery takes longer than usual."},
	Interrupted:        {"interrupted", "This server stopped while the attempt was under way."},
	Drained:            {"drained", "This server is stopping and did not begin the attempt."},
	LocalError:         {"local_error", "This server could not do its part of the attempt."},
	RelayDenied:        {"relay_denied", "The client may not send to this recipient through this server."},
	InvalidSender:      {"invalid_sender", "The sender address is not acceptable."},
	InvalidRecipient:   {"invalid_recipient", "The recipient address is not acceptable."},
	InvalidMessage:     {"invalid_message", "The message breaks the rules of its form."},
	LimitExceeded:      {"limit_exceeded", "A limit of this server was reached."},
	StorageUnavailable: {"storage_unavailable", "This server could not store the message."},
	ClientLost:         {"client_lost", "The client went away before the message was complete."},
	Unauthenticated:    {"unauthenticated", "The message fails the checks of who it is from (DMARC, SPF)."},
	NotSigned:          {"not_signed", "The message must be signed, and no key could sign it."},

	TLSRequired:  {"tls_required", "An encrypted session is demanded there, and the remote host could not make one."},
	TLSUntrusted: {"tls_untrusted", "The remote host did not prove to be the one that the mail is for."},
	TLSPolicy:    {"tls_policy", "What the domain publishes about its mail servers does not let this host be used."},
	TLSDowngrade: {"tls_downgrade", "The remote host used to encrypt sessions and no longer does; the mail waits a while."},
	RequireTLSUnsupported: {"requiretls_unsupported",
		"The message requires TLS all the way, and there is no such way to the remote server."},
	LoginFailed: {"login_failed", "The smart host did not take this server's login."},

	ReportTaken: {"report_taken", "The message is a report for this server, which has read it."},
}

// Reasons returns all reasons in their order of declaration.
func Reasons() []Reason {
	all := make([]Reason, 0, len(reasons)-1)
	for r := Submitted; int(r) < len(reasons); r++ {
		all = append(all, r)
	}
	return all
}

// String returns the stable snake_case name, empty for the zero value.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r].name
	}
	return ""
}

// Explain returns one sentence for people, empty for the zero value.
func (r Reason) Explain() string {
	if int(r) < len(reasons) {
		return reasons[r].text
	}
	return ""
}

// ParseReason returns the reason with this name.
func ParseReason(name string) (Reason, error) {
	for r := Submitted; int(r) < len(reasons); r++ {
		if reasons[r].name == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("event: no reason %q", name)
}

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text gives the zero value.
func (r *Reason) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*r = 0
		return nil
	}
	*r, err = ParseReason(string(text))
	return err
}
