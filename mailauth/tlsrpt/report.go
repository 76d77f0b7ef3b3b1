package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"strconv"
	"time"
)

// PolicyType says which kind of policy a domain published (RFC 8460, 4.4, policy-type).
type PolicyType string

// The kinds of policies.
const (
	TLSA          PolicyType = "tlsa"
	STS           PolicyType = "sts"
	NoPolicyFound PolicyType = "no-policy-found"
)

// ResultType says what went wrong with a session (RFC 8460, 4.3; the IANA registry of STARTTLS validation result types).
type ResultType string

// The result types.
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"
	CertificateHostMismatch ResultType = "certificate-host-mismatch"
	CertificateExpired      ResultType = "certificate-expired"
	CertificateNotTrusted   ResultType = "certificate-not-trusted"
	ValidationFailure       ResultType = "validation-failure"
	TLSAInvalid             ResultType = "tlsa-invalid"
	DNSSECInvalid           ResultType = "dnssec-invalid"
	DANERequired            ResultType = "dane-required"
	STSPolicyFetchError     ResultType = "sts-policy-fetch-error"
	STSPolicyInvalid        ResultType = "sts-policy-invalid"
	STSWebPKIInvalid        ResultType = "sts-webpki-invalid"
)

// ResultTypes returns all of them.
func ResultTypes() []ResultType {
	return []ResultType{
		StartTLSNotSupported, CertificateHostMismatch, CertificateExpired, CertificateNotTrusted, ValidationFailure,
		TLSAInvalid, DNSSECInvalid, DANERequired, STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid,
	}
}

// Report is what one sender tells one domain about a stretch of time, usually a day of UTC. Its JSON form is that of RFC 8460, 4.4.
type Report struct {
	Organization string    `json:"organization-name"`
	Range        DateRange `json:"date-range"`
	Contact      string    `json:"contact-info"`
	ID           string    `json:"report-id"`
	Policies     []Policy  `json:"policies"`
}

// DateRange is the time that a report is about.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// Policy is what happened under one policy.
type Policy struct {
	Policy   PolicyDescription `json:"policy"`
	Summary  Summary           `json:"summary"`
	Failures []Failure         `json:"failure-details,omitempty"`
}

// PolicyDescription is a policy as the sender saw it.
type PolicyDescription struct {
	Type    PolicyType `json:"policy-type"`
	Strings []string   `json:"policy-string,omitempty"` // lines of an MTA-STS policy, or TLSA records
	Domain  string     `json:"policy-domain"`
	Hosts   []string   `json:"mx-host,omitempty"` // patterns of an MTA-STS policy
}

// Summary counts sessions.
type Summary struct {
	Successful int64 `json:"total-successful-session-count"`
	Failed     int64 `json:"total-failure-session-count"`
}

// Failure counts the sessions that failed in one way.
type Failure struct {
	Type        ResultType `json:"result-type"`
	SendingIP   string     `json:"sending-mta-ip,omitempty"`
	Host        string     `json:"receiving-mx-hostname,omitempty"`
	Hello       string     `json:"receiving-mx-helo,omitempty"`
	ReceivingIP string     `json:"receiving-ip,omitempty"`
	Sessions    int64      `json:"failed-session-count"`
	Information string     `json:"additional-information,omitempty"`
	Reason      string     `json:"failure-reason-code,omitempty"`
}

// JSON returns the report as a file has it. Times are written in UTC, to the second.
func (r *Report) JSON() ([]byte, error) {
	out := *r
	out.Range = DateRange{r.Range.Start.UTC().Truncate(time.Second), r.Range.End.UTC().Truncate(time.Second)}
	if out.Policies == nil {
		out.Policies = []Policy{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&out); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Gzip returns the report as it is sent.
func (r *Report) Gzip() ([]byte, error) {
	p, err := r.JSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(p); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// FileName returns the name of the report's file (RFC 8460, 5.1): who sends it, which domain it is about, and when.
func (r *Report) FileName(submitter, domain string) string {
	return submitter + "!" + domain + "!" + strconv.FormatInt(r.Range.Start.Unix(), 10) + "!" +
		strconv.FormatInt(r.Range.End.Unix(), 10) + ".json.gz"
}

// MediaType is that of what [Report.Gzip] returns (RFC 8460, 5.5).
const MediaType = "application/tlsrpt+gzip"

// Totals returns the sums over all policies.
func (r *Report) Totals() Summary {
	var s Summary
	for i := range r.Policies {
		s.Successful += r.Policies[i].Summary.Successful
		s.Failed += r.Policies[i].Summary.Failed
	}
	return s
}
