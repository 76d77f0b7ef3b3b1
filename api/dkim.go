package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// DKIMKey is a key that signs mail, or will, or did. The private key is in no answer.
type DKIMKey struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Tenant    string `json:"tenant,omitempty"` // empty: the operator's, which signs the mail of everybody whose domain it is
	Algorithm string `json:"algorithm"`        // rsa-sha256, ed25519-sha256
	Bits      int    `json:"bits"`
	State     string `json:"state"`             // created, published, verified, signing, retiring, revoked
	Place     string `json:"place,omitempty"`   // of the private key: configuration, command, store (encrypted), file; empty: it is gone
	Signs     bool   `json:"signs"`             // now
	Instead   bool   `json:"instead,omitempty"` // it signs in place of another key, whose record is not in DNS

	Created   *time.Time `json:"created,omitempty"`
	Published *time.Time `json:"published,omitempty"` // a name server had the record first
	Verified  *time.Time `json:"verified,omitempty"`  // all had it first
	Activated *time.Time `json:"activated,omitempty"` // it began to sign
	Retired   *time.Time `json:"retired,omitempty"`   // it signed last
	Revoked   *time.Time `json:"revoked,omitempty"`
	Checked   *time.Time `json:"checked,omitempty"` // DNS was asked last
	Good      *time.Time `json:"good,omitempty"`    // all had the record last

	Problem      string `json:"problem,omitempty"`       // what the last check found
	PublishError string `json:"publish_error,omitempty"` // why the record could not be written

	Record DKIMRecord `json:"record"`
	Task   DKIMTask   `json:"task"`
}

// DKIMRecord is the TXT record of a key, as it is to stand in DNS now.
type DKIMRecord struct {
	Name    string   `json:"name"`
	Text    string   `json:"text,omitempty"`    // in one piece, as web consoles want it; empty: there is to be none
	Strings []string `json:"strings,omitempty"` // in pieces of at most 255 octets
	Zone    string   `json:"zone,omitempty"`    // as in a zone file
}

// DKIMTask is what is to be done about a record.
type DKIMTask struct {
	Act       string     `json:"act"`             // put, keep, replace, remove
	Until     *time.Time `json:"until,omitempty"` // how long it is to be kept, or stay as it is replaced
	Automatic bool       `json:"automatic"`       // the server does it
}

// DKIMKeyList is the answer to a question for keys, by domain, tenant and state.
type DKIMKeyList struct {
	Keys []DKIMKey `json:"keys"`
}

// NewDKIMKeys asks for the first keys of a domain.
type NewDKIMKeys struct {
	Domain     string   `json:"domain"`
	Tenant     string   `json:"tenant,omitempty"`
	Selector   string   `json:"selector,omitempty"`   // with one algorithm only; empty: one is made up
	Algorithms []string `json:"algorithms,omitempty"` // rsa-sha256, ed25519-sha256; none: those of the configuration
}

// ImportedDKIMKey is a key that was made elsewhere.
type ImportedDKIMKey struct {
	Domain     string `json:"domain"`
	Selector   string `json:"selector"`
	Tenant     string `json:"tenant,omitempty"`
	PrivateKey string `json:"private_key"` // PEM, or 32 octets in base64
}

// DKIMChoice narrows what is done to a domain's keys.
type DKIMChoice struct {
	Selector string `json:"selector,omitempty"` // empty: all of the domain
}

// DKIMForce says that an operator means it.
type DKIMForce struct {
	Force bool `json:"force,omitempty"`
}

// DKIMKeys lists keys, of one domain if it is not empty, of one tenant if that is not empty.
func (c *Client) DKIMKeys(ctx context.Context, domain, tenant string) (DKIMKeyList, error) {
	q := url.Values{}
	for name, value := range map[string]string{"domain": domain, "tenant": tenant} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return call[DKIMKeyList](ctx, c, http.MethodGet, "/v1/dkim?"+q.Encode(), nil)
}

// DKIMKey tells one key.
func (c *Client) DKIMKey(ctx context.Context, domain, selector string) (DKIMKey, error) {
	return call[DKIMKey](ctx, c, http.MethodGet, dkimPath(domain, selector), nil)
}

// CreateDKIMKeys makes the first keys of a domain. Their records are published, if the server can, and looked for.
func (c *Client) CreateDKIMKeys(ctx context.Context, n NewDKIMKeys) (DKIMKeyList, error) {
	return call[DKIMKeyList](ctx, c, http.MethodPost, "/v1/dkim", n)
}

// ImportDKIMKey hands the server a key.
func (c *Client) ImportDKIMKey(ctx context.Context, k ImportedDKIMKey) (DKIMKey, error) {
	return call[DKIMKey](ctx, c, http.MethodPost, "/v1/dkim/import", k)
}

// RotateDKIMKeys makes new keys for a domain, which take the place of those that sign when DNS shows them.
func (c *Client) RotateDKIMKeys(ctx context.Context, domain, tenant string) (DKIMKeyList, error) {
	return call[DKIMKeyList](ctx, c, http.MethodPost, dkimPath(domain, "rotation")+"?"+ofTenant(tenant), struct{}{})
}

// CheckDKIMKeys has DNS looked at now. Keys move on if it shows what they wait for.
func (c *Client) CheckDKIMKeys(ctx context.Context, domain, selector string) (DKIMKeyList, error) {
	return call[DKIMKeyList](ctx, c, http.MethodPost, dkimPath(domain, "check"), DKIMChoice{selector})
}

// PublishDKIMKeys has records written into DNS now.
func (c *Client) PublishDKIMKeys(ctx context.Context, domain, selector string) (DKIMKeyList, error) {
	return call[DKIMKeyList](ctx, c, http.MethodPost, dkimPath(domain, "publication"), DKIMChoice{selector})
}

// ActivateDKIMKey lets a key sign now.
func (c *Client) ActivateDKIMKey(ctx context.Context, domain, selector string, force bool) (DKIMKey, error) {
	return call[DKIMKey](ctx, c, http.MethodPost, dkimPath(domain, selector)+"/activation", DKIMForce{force})
}

// RetireDKIMKey lets a key sign no more; its record is still needed for a while.
func (c *Client) RetireDKIMKey(ctx context.Context, domain, selector string, force bool) (DKIMKey, error) {
	return call[DKIMKey](ctx, c, http.MethodPost, dkimPath(domain, selector)+"/retirement", DKIMForce{force})
}

// RevokeDKIMKey ends a key at once and for good.
func (c *Client) RevokeDKIMKey(ctx context.Context, domain, selector string) (DKIMKey, error) {
	return call[DKIMKey](ctx, c, http.MethodPost, dkimPath(domain, selector)+"/revocation", struct{}{})
}

func dkimPath(domain, rest string) string {
	return "/v1/dkim/" + url.PathEscape(domain) + "/" + url.PathEscape(rest)
}
