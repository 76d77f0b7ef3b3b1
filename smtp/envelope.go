package smtp

// BodyType is the BODY parameter of MAIL (RFC 6152, 2).
type BodyType uint8

const (
	Body7Bit     BodyType = iota // absent, or BODY=7BIT
	Body8BitMIME                 // BODY=8BITMIME
)

// Return is the RET parameter of MAIL (RFC 3461, 4.3): how much of a message a failure report returns.
type Return uint8

const (
	ReturnUnset   Return = iota
	ReturnFull           // RET=FULL
	ReturnHeaders        // RET=HDRS
)

// Notify is the NOTIFY parameter of RCPT (RFC 3461, 4.1), a set. Zero means the parameter was absent, which asks for
// reports of failure.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota // alone
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Failure reports whether a failure is to be reported.
func (n Notify) Failure() bool { return n == 0 || n&NotifyFailure != 0 }

// Delay reports whether a delay is asked to be reported.
func (n Notify) Delay() bool { return n&NotifyDelay != 0 }

// Success reports whether a success is asked to be reported.
func (n Notify) Success() bool { return n&NotifySuccess != 0 }

// OriginalRecipient is the ORCPT parameter of RCPT (RFC 3461, 4.2), decoded. The zero value means it was absent.
type OriginalRecipient struct {
	Type    string // address type, lower case: "rfc822", "utf-8"
	Address string // decoded from xtext or utf-8-addr-xtext
}

// Recipient is one accepted RCPT with its parameters.
type Recipient struct {
	Path
	Notify   Notify
	Original OriginalRecipient
}

// Sender is an accepted MAIL with its parameters.
type Sender struct {
	Path
	Size       int64    // declared SIZE in octets (RFC 1870, 6), 0 if absent
	Body       BodyType // declared BODY
	UTF8       bool     // SMTPUTF8 was given (RFC 6531, 3.4)
	RequireTLS bool     // REQUIRETLS was given (RFC 8689, 2)
	Return     Return   // RET
	EnvelopeID string   // ENVID, decoded (RFC 3461, 4.4)

	// Auth is who first submitted the message as the client tells it, decoded (RFC 4954, 5): "<>" if it does not know,
	// empty if the parameter was absent. Only a peer that is trusted to know may be believed; an engine that does not
	// know the peer drops it.
	Auth string
}

// Envelope is what MAIL and RCPT said of a message.
type Envelope struct {
	From       Sender
	Recipients []Recipient
}
