package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Limit bounds one kind of use within a period.
type Limit struct {
	Subject string `json:"subject"` // messages, recipients, bytes, unique_recipients
	Per     string `json:"per"`     // minute, hour, day
	Max     int64  `json:"max"`     // 1 or more; -1: no limit, whatever the configuration says
}

// Credential is what an application proves itself by. No secret is in it.
type Credential struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Login  string `json:"login"` // the user name
	Note   string `json:"note,omitempty"`
	Kind   string `json:"kind"` // password, key, certificate, oauth

	Scopes     []string `json:"scopes"`                // smtp, api, read, admin
	Role       string   `json:"role,omitempty"`        // viewer, operator, admin; empty: may only send
	AllTenants bool     `json:"all_tenants,omitempty"` // the role holds for every tenant

	Senders    []string `json:"senders,omitempty"`     // domains and addresses it may send from; none: all of the tenant's
	NullSender bool     `json:"null_sender,omitempty"` // it may send with an empty sender, as reports are
	Networks   []string `json:"networks,omitempty"`    // it may come from, as prefixes; none: everywhere
	Limits     []Limit  `json:"limits,omitempty"`

	CertificateName string `json:"certificate_name,omitempty"` // kind certificate
	Issuer          string `json:"issuer,omitempty"`           // kind oauth
	Subject         string `json:"subject,omitempty"`          // kind oauth

	State    string     `json:"state"` // active, disabled, expired, tenant_disabled
	Created  time.Time  `json:"created"`
	Rotated  *time.Time `json:"rotated,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	LastUse  *time.Time `json:"last_use,omitempty"`
	LastFrom string     `json:"last_from,omitempty"` // address or IPv6 network
}

// CredentialList is the answer to a question for credentials, by tenant and login.
type CredentialList struct {
	Credentials []Credential `json:"credentials"`
}

// NewCredential asks for a credential. Tenant and Login are needed.
type NewCredential struct {
	Tenant string `json:"tenant"`
	Login  string `json:"login"`
	Note   string `json:"note,omitempty"`
	Kind   string `json:"kind,omitempty"` // empty: password
	// Password of a credential of that kind; empty: one is made, which is better.
	Password string `json:"password,omitempty"`

	Scopes     []string `json:"scopes,omitempty"` // none: smtp, and with keys api
	Role       string   `json:"role,omitempty"`
	AllTenants bool     `json:"all_tenants,omitempty"`

	Senders []string `json:"senders,omitempty"`
	// AssignDomains makes domains of Senders the tenant's by the operator's word, where they are not.
	AssignDomains bool     `json:"assign_domains,omitempty"`
	NullSender    bool     `json:"null_sender,omitempty"`
	Networks      []string `json:"networks,omitempty"` // prefixes or addresses
	Limits        []Limit  `json:"limits,omitempty"`

	CertificateName string `json:"certificate_name,omitempty"`
	Issuer          string `json:"issuer,omitempty"`
	Subject         string `json:"subject,omitempty"` // empty: the login

	Expires *time.Time `json:"expires,omitempty"`
}

// CredentialSecret is a credential just made or rotated, with its secret. The secret is in no other answer.
type CredentialSecret struct {
	Credential Credential `json:"credential"`
	// Secret is the password or API key, if the server made it.
	Secret string `json:"secret,omitempty"`
	// OldUntil is until when the secret before this one is good.
	OldUntil *time.Time `json:"old_until,omitempty"`
	// AssignedDomains are the tenant's from now on.
	AssignedDomains []string `json:"assigned_domains,omitempty"`
	// Servers are listeners that it can log in to by SMTP.
	Servers []SubmissionServer `json:"servers,omitempty"`
}

// SubmissionServer is a listener as an application has to know it.
type SubmissionServer struct {
	Listener string `json:"listener"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	TLS      string `json:"tls"`  // off, starttls, implicit
	Login    string `json:"auth"` // optional, required
}

// CredentialChange is what is to change; what is left out stays as it is, and an empty list is an empty list.
type CredentialChange struct {
	Note          *string    `json:"note,omitempty"`
	Scopes        *[]string  `json:"scopes,omitempty"`
	Role          *string    `json:"role,omitempty"`
	AllTenants    *bool      `json:"all_tenants,omitempty"`
	Senders       *[]string  `json:"senders,omitempty"`
	AssignDomains bool       `json:"assign_domains,omitempty"`
	NullSender    *bool      `json:"null_sender,omitempty"`
	Networks      *[]string  `json:"networks,omitempty"`
	Limits        *[]Limit   `json:"limits,omitempty"`
	Expires       *time.Time `json:"expires,omitempty"`
	NeverExpires  bool       `json:"never_expires,omitempty"`
	Disabled      *bool      `json:"disabled,omitempty"`
}

// Rotation asks for a new secret.
type Rotation struct {
	Password string `json:"password,omitempty"` // empty: one is made
	// KeepOldFor is for how many seconds the old secret is good too, but by SCRAM; 0 ends it and the sessions that it
	// opened at once.
	KeepOldFor int64 `json:"keep_old_for,omitempty"`
}

// Tenant owns mail, domains and credentials.
type Tenant struct {
	ID          string     `json:"id"`
	Name        string     `json:"name,omitempty"`
	Disabled    bool       `json:"disabled"`
	Configured  bool       `json:"configured"` // it stands in the configuration file
	Limits      []Limit    `json:"limits,omitempty"`
	TLS         string     `json:"tls"` // what sessions must have that carry its mail: none, opportunistic, encrypted, verified; default: it demands nothing
	Created     *time.Time `json:"created,omitempty"`
	Credentials int        `json:"credentials"`
	Domains     int        `json:"domains"` // that it may send from
}

// TenantList is all tenants, by id.
type TenantList struct {
	Tenants []Tenant `json:"tenants"`
}

// NewTenant asks for a tenant.
type NewTenant struct {
	ID     string  `json:"id"`
	Name   string  `json:"name,omitempty"`
	Limits []Limit `json:"limits,omitempty"`
	TLS    string  `json:"tls,omitempty"` // as in Tenant
}

// TenantChange is what is to change; what is left out stays as it is.
type TenantChange struct {
	Name     *string  `json:"name,omitempty"`
	Disabled *bool    `json:"disabled,omitempty"`
	Limits   *[]Limit `json:"limits,omitempty"`
	TLS      *string  `json:"tls,omitempty"` // as in Tenant
}

// Domain is a tenant's claim to a domain.
type Domain struct {
	Name   string `json:"name"` // in A-labels
	Tenant string `json:"tenant"`
	State  string `json:"state"`  // assigned, pending, proven, expired
	Source string `json:"source"` // dns, operator, configuration
	Exact  bool   `json:"exact"`  // what is below the domain is not included
	Usable bool   `json:"usable"` // the tenant may send from it

	// Challenge is what to put into DNS; either of its records.
	Challenge *Challenge `json:"challenge,omitempty"`

	Created *time.Time `json:"created,omitempty"`
	Proven  *time.Time `json:"proven,omitempty"`
	Checked *time.Time `json:"checked,omitempty"`
	Missing *time.Time `json:"missing,omitempty"` // since when the proof is gone from DNS; the domain stays proven
	Problem string     `json:"problem,omitempty"` // what the last check found wrong
}

// Challenge is the record that proves a domain: a TXT record with Text, or a CNAME record to Alias.
type Challenge struct {
	Name  string    `json:"name"`
	Text  string    `json:"txt"`
	Alias string    `json:"cname"`
	Until time.Time `json:"until"`
}

// DomainList is the answer to a question for domains, by name and tenant.
type DomainList struct {
	Domains []Domain `json:"domains"`
}

// NewDomain claims a domain for a tenant.
type NewDomain struct {
	Name     string `json:"name"`
	Tenant   string `json:"tenant"`
	Exact    bool   `json:"exact,omitempty"`
	Assigned bool   `json:"assigned,omitempty"` // by the operator's word, without proof
}

// Ban is an automatic ban after too many failed logins. It ends by itself.
type Ban struct {
	// Kind is address (all logins from it but of accounts at home there), account (from everywhere but its home), or home
	// (an account at one of its home addresses).
	Kind     string    `json:"kind"`
	Address  string    `json:"address,omitempty"` // or IPv6 network
	Login    string    `json:"login,omitempty"`
	Tenant   string    `json:"tenant,omitempty"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Failures int       `json:"failures"`
	Count    int       `json:"count"` // of bans in a row
}

// BanList is bans, those that end last first.
type BanList struct {
	Bans []Ban `json:"bans"`
}

// BanSelection says which bans to lift: fields are joined by and, at least one is needed.
type BanSelection struct {
	Address string `json:"address,omitempty"`
	Login   string `json:"login,omitempty"`
	All     bool   `json:"all,omitempty"`
}

// Credentials lists credentials, of one tenant if it is not empty.
func (c *Client) Credentials(ctx context.Context, tenant string) (CredentialList, error) {
	return call[CredentialList](ctx, c, http.MethodGet, "/v1/credentials?"+ofTenant(tenant), nil)
}

// Credential shows one credential, by id or login.
func (c *Client) Credential(ctx context.Context, name string) (Credential, error) {
	return call[Credential](ctx, c, http.MethodGet, credentialPath(name), nil)
}

// CreateCredential makes a credential and returns its secret, this once.
func (c *Client) CreateCredential(ctx context.Context, n NewCredential) (CredentialSecret, error) {
	return call[CredentialSecret](ctx, c, http.MethodPost, "/v1/credentials", n)
}

// UpdateCredential changes a credential; sessions that are open follow at once.
func (c *Client) UpdateCredential(ctx context.Context, name string, ch CredentialChange) (Credential, error) {
	return call[Credential](ctx, c, http.MethodPatch, credentialPath(name), ch)
}

// RotateCredential replaces the secret of a credential and returns the new one, this once.
func (c *Client) RotateCredential(ctx context.Context, name string, r Rotation) (CredentialSecret, error) {
	return call[CredentialSecret](ctx, c, http.MethodPost, credentialPath(name)+"/rotation", r)
}

// RevokeCredential removes a credential for ever; sessions that are open end at their next message.
func (c *Client) RevokeCredential(ctx context.Context, name string) (Credential, error) {
	return call[Credential](ctx, c, http.MethodDelete, credentialPath(name), nil)
}

func credentialPath(name string) string { return "/v1/credentials/" + url.PathEscape(name) }

// Tenants lists tenants.
func (c *Client) Tenants(ctx context.Context) (TenantList, error) {
	return call[TenantList](ctx, c, http.MethodGet, "/v1/tenants", nil)
}

// Tenant shows one tenant.
func (c *Client) Tenant(ctx context.Context, id string) (Tenant, error) {
	return call[Tenant](ctx, c, http.MethodGet, "/v1/tenants/"+url.PathEscape(id), nil)
}

// CreateTenant makes a tenant.
func (c *Client) CreateTenant(ctx context.Context, n NewTenant) (Tenant, error) {
	return call[Tenant](ctx, c, http.MethodPost, "/v1/tenants", n)
}

// UpdateTenant changes a tenant.
func (c *Client) UpdateTenant(ctx context.Context, id string, ch TenantChange) (Tenant, error) {
	return call[Tenant](ctx, c, http.MethodPatch, "/v1/tenants/"+url.PathEscape(id), ch)
}

// RemoveTenant removes a tenant that has neither credentials nor domains.
func (c *Client) RemoveTenant(ctx context.Context, id string) (Tenant, error) {
	return call[Tenant](ctx, c, http.MethodDelete, "/v1/tenants/"+url.PathEscape(id), nil)
}

// Domains lists domains, of one tenant if it is not empty.
func (c *Client) Domains(ctx context.Context, tenant string) (DomainList, error) {
	return call[DomainList](ctx, c, http.MethodGet, "/v1/domains?"+ofTenant(tenant), nil)
}

// AddDomain claims a domain for a tenant; the answer says what proves it.
func (c *Client) AddDomain(ctx context.Context, n NewDomain) (Domain, error) {
	return call[Domain](ctx, c, http.MethodPost, "/v1/domains", n)
}

// VerifyDomain has the server look for the proof in DNS. The answer's State and Problem say what it found.
func (c *Client) VerifyDomain(ctx context.Context, name, tenant string) (Domain, error) {
	return call[Domain](ctx, c, http.MethodPost, "/v1/domains/"+url.PathEscape(name)+"/verification?"+ofTenant(tenant), struct{}{})
}

// RemoveDomain takes a domain from a tenant.
func (c *Client) RemoveDomain(ctx context.Context, name, tenant string) (Domain, error) {
	return call[Domain](ctx, c, http.MethodDelete, "/v1/domains/"+url.PathEscape(name)+"?"+ofTenant(tenant), nil)
}

// Bans lists the bans in force.
func (c *Client) Bans(ctx context.Context) (BanList, error) {
	return call[BanList](ctx, c, http.MethodGet, "/v1/bans", nil)
}

// ClearBans lifts bans and returns those that were in force.
func (c *Client) ClearBans(ctx context.Context, s BanSelection) (BanList, error) {
	return call[BanList](ctx, c, http.MethodPost, "/v1/bans/clear", s)
}

func ofTenant(tenant string) string {
	v := url.Values{}
	set(v, "tenant", tenant)
	return v.Encode()
}
