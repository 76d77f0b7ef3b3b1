package tlspolicy

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// Kind is what published the policy, as reports name it (RFC 8460, 4.2, policy-type).
type Kind string

const (
	KindTLSA Kind = "tlsa"
	KindSTS  Kind = "sts"
	KindNone Kind = "no-policy-found"
)

// FailureType is why a session failed or would have, as reports name it (RFC 8460, 4.3). The set is closed.
type FailureType string

const (
	STARTTLSNotSupported    FailureType = "starttls-not-supported"
	CertificateHostMismatch FailureType = "certificate-host-mismatch"
	CertificateExpired      FailureType = "certificate-expired"
	CertificateNotTrusted   FailureType = "certificate-not-trusted"
	ValidationFailure       FailureType = "validation-failure" // anything else, a failed handshake too
	TLSAInvalid             FailureType = "tlsa-invalid"
	DNSSECInvalid           FailureType = "dnssec-invalid"
	DANERequired            FailureType = "dane-required"
	STSPolicyFetchError     FailureType = "sts-policy-fetch-error"
	STSPolicyInvalid        FailureType = "sts-policy-invalid"
	STSWebPKIInvalid        FailureType = "sts-webpki-invalid"
)

// FailureTypes lists them all.
func FailureTypes() []FailureType {
	return []FailureType{
		STARTTLSNotSupported, CertificateHostMismatch, CertificateExpired, CertificateNotTrusted, ValidationFailure,
		TLSAInvalid, DNSSECInvalid, DANERequired, STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid,
	}
}

// Failure is one thing that does not hold. It is not to be changed.
type Failure struct {
	Type   FailureType
	Detail string // a part of a sentence for operators and reports (failure-reason-code), printable ASCII, at most 255 octets
}

// Error makes a Failure an error.
func (f *Failure) Error() string { return string(f.Type) + ": " + f.Detail }

// Plan is what holds towards one host for mail to one domain. The zero Plan demands nothing: opportunistic TLS without
// authentication (RFC 7435).
type Plan struct {
	Policy   Kind
	Domain   string   // the policy domain of reports: the recipient's, for DANE the TLSA base domain (RFC 8460, 1.1)
	Strings  []string // the policy's text for reports: lines of the MTA-STS policy, TLSA records (RFC 8460, 4.4)
	Patterns []string // "mx" of the MTA-STS policy; none otherwise

	// Skip is set if the host must not be used: not named by the MTA-STS policy, or its TLSA records cannot be had. Others
	// may; without any, mail waits (4.7.x) and is never bounced before its time for this.
	Skip *Failure
	// Required forbids clear text.
	Required bool
	// ServerName is for SNI: what was looked up, or the TLSA base domain (RFC 7672, 8.1).
	ServerName string
	// Verify authenticates the host after a handshake that checked nothing (InsecureSkipVerify). Nil: nobody is
	// authenticated. Safe for concurrent use; the state is only read.
	Verify func(*tls.ConnectionState) *Failure
	// Testing says that what Verify, a missing STARTTLS or a failed handshake find is to be reported and mail goes on as
	// if there were no policy (RFC 8461, 5, "testing").
	Testing bool
	// Note is a finding to be reported although mail goes on: the host is not in a testing policy, or none of its TLSA
	// records can be used.
	Note *Failure
	// Key is equal for equal demands on the connection, empty for none. A session that was set up under one key is never
	// used under another, so that no domain's policy is taken for another's.
	Key string
}

// Demands reports whether the plan can keep mail from leaving.
func (p Plan) Demands() bool { return p.Skip != nil || p.Required }

// Result is what came of one session, or of the way to one, for reports (RFC 8460, 4.3).
type Result struct {
	Time              time.Time
	Domain            string // policy-domain: the recipient's for MTA-STS and for none, the TLSA base domain's host for DANE
	Policy            Kind
	Strings, Patterns []string
	Failure           *Failure   // nil: success
	Source, Remote    netip.Addr // sending-mta-ip, receiving-ip; may be invalid
	Host, Hello       string     // receiving-mx-hostname, receiving-mx-helo
}

// Recorder collects results. Record never blocks.
type Recorder interface{ Record(Result) }
