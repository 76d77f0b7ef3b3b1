package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// DomainTLS is what TLS mail to a domain must have since the domain published it, as it stands now.
type DomainTLS struct {
	Domain string     `json:"domain"`
	STS    *STSPolicy `json:"sts,omitempty"`   // none is known without
	Notes  []string   `json:"notes"`           // what is wrong with what was published
	Signed bool       `json:"dnssec"`          // the MX records were validated with DNSSEC by a server that is trusted
	Error  string     `json:"error,omitempty"` // why the hosts are not known
	Hosts  []TLSHost  `json:"hosts"`           // in the order they are tried
}

// STSPolicy is the MTA-STS policy of a domain that is kept (RFC 8461).
type STSPolicy struct {
	Mode    string    `json:"mode"` // enforce, testing, none
	MX      []string  `json:"mx"`
	ID      string    `json:"id,omitempty"` // of the TXT record it came with
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
	Refresh time.Time `json:"refresh"` // when it is fetched anew, or tried to be
	Failed  int       `json:"failed"`  // fetches in a row that gave nothing
}

// TLSHost is what holds towards one host of the domain.
type TLSHost struct {
	Host       string   `json:"host"`
	Preference int      `json:"preference"`
	Policy     string   `json:"policy"`            // tlsa, sts, no-policy-found
	Records    []string `json:"records,omitempty"` // TLSA
	Base       string   `json:"base,omitempty"`    // whose TLSA records they are
	Used       bool     `json:"used"`              // false: mail does not go there
	Required   bool     `json:"required"`          // mail does not go there in the clear
	Verified   bool     `json:"verified"`          // the host must prove who it is
	Testing    bool     `json:"testing"`           // what fails is reported, and mail goes
	Meaning    string   `json:"meaning"`           // all of it in words
}

// TLSPolicyReset says whether there was something to forget.
type TLSPolicyReset struct {
	Domain    string `json:"domain"`
	Forgotten bool   `json:"forgotten"`
}

// TLSPolicy tells what holds towards a domain. The server asks DNS and the domain's policy host for what it does not know.
func (c *Client) TLSPolicy(ctx context.Context, domain string) (DomainTLS, error) {
	return call[DomainTLS](ctx, c, http.MethodGet, "/v1/tls/policies/"+url.PathEscape(domain), nil)
}

// ResetTLSPolicy lets the server forget the MTA-STS policy of a domain.
func (c *Client) ResetTLSPolicy(ctx context.Context, domain string) (TLSPolicyReset, error) {
	return call[TLSPolicyReset](ctx, c, http.MethodDelete, "/v1/tls/policies/"+url.PathEscape(domain), nil)
}
