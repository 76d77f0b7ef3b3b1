package auth

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Keys in the store. A change of what is behind them is a change of the format on disk.
const (
	tenantPrefix     = "tenant/"     // + id
	domainPrefix     = "domain/"     // + name + "/" + tenant: several tenants may claim a domain, proof decides
	credentialPrefix = "credential/" // + id
	loginPrefix      = "login/"      // + name, holds the id of its credential
	usePrefix        = "use/"        // + id of a credential: when and whence it was last used
	saltKey          = "auth/salt"   // 32 random octets: salts of names that do not exist come from it
)

// Kind says how the holder of a credential proves that it is its own.
type Kind string

// The kinds of credentials.
const (
	Password    Kind = "password"    // PLAIN, LOGIN, SCRAM
	Key         Kind = "key"         // an API key, which is good as an SMTP password too
	Certificate Kind = "certificate" // EXTERNAL, by a name in the client's certificate
	OAuth       Kind = "oauth"       // OAUTHBEARER and XOAUTH2, by the subject of a token
)

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{Password, Key, Certificate, OAuth} }

// Scope is a door that a credential opens.
type Scope string

// The scopes.
const (
	ScopeSMTP  Scope = "smtp"  // send by SMTP
	ScopeAPI   Scope = "api"   // send by HTTP
	ScopeRead  Scope = "read"  // look at queues, messages and events
	ScopeAdmin Scope = "admin" // change things, as far as the role allows
)

// Scopes lists all scopes.
func Scopes() []Scope { return []Scope{ScopeSMTP, ScopeAPI, ScopeRead, ScopeAdmin} }

// Role says how far reading and changing go. Each includes those before it.
type Role string

// The roles. They hold within the credential's tenant, or everywhere if the credential is for all tenants.
const (
	Viewer   Role = "viewer"   // may look
	Operator Role = "operator" // may act on mail: hold, release, retry
	Admin    Role = "admin"    // may change credentials and domains
)

// Roles lists all roles, the weakest first.
func Roles() []Role { return []Role{Viewer, Operator, Admin} }

// Includes reports whether r may do what needs other.
func (r Role) Includes(other Role) bool {
	return slices.Index(Roles(), r) >= slices.Index(Roles(), other)
}

// Limit bounds one kind of use within a period.
type Limit struct {
	Subject string `json:"subject"` // messages, recipients, bytes, unique_recipients
	Per     string `json:"per"`     // minute, hour, day
	Max     int64  `json:"max"`     // -1: none, whatever the configuration says
}

// Tenant owns mail, domains and credentials.
type Tenant struct {
	ID       string    `json:"id"`
	Name     string    `json:"name,omitempty"` // for people
	Disabled bool      `json:"disabled,omitempty"`
	Limits   []Limit   `json:"limits,omitempty"`
	TLS      string    `json:"tls,omitempty"` // what sessions must have that carry its mail: one of [TLSWords]; empty: it demands nothing
	Created  time.Time `json:"created"`
}

// Credential is what an application proves itself by. It is the public part: nothing in it lets anybody in.
type Credential struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Login  string `json:"login"` // the user name; unique in the server
	Note   string `json:"note,omitempty"`
	Kind   Kind   `json:"kind"`

	Scopes     []Scope `json:"scopes"`
	Role       Role    `json:"role,omitempty"`
	AllTenants bool    `json:"all_tenants,omitempty"` // the role holds for every tenant

	// Senders are the domains ("example.com", which includes what is below it) and addresses ("news@example.com") that
	// it may send from. None: all of the tenant's.
	Senders    []string `json:"senders,omitempty"`
	NullSender bool     `json:"null_sender,omitempty"` // it may send reports, whose reverse-path is empty

	Networks []netip.Prefix `json:"networks,omitempty"` // it may come from; none: everywhere
	Limits   []Limit        `json:"limits,omitempty"`

	Name    string `json:"certificate_name,omitempty"` // Certificate: a DNS name, address or URI among the SANs
	Issuer  string `json:"issuer,omitempty"`           // OAuth: name of the configured issuer
	Subject string `json:"subject,omitempty"`          // OAuth: value of the issuer's claim

	Created  time.Time `json:"created"`
	Rotated  time.Time `json:"rotated,omitzero"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never
	Disabled bool      `json:"disabled,omitempty"`
}

// Has reports whether the credential opens the door s.
func (c *Credential) Has(s Scope) bool { return slices.Contains(c.Scopes, s) }

// credentialRecord is a credential as it is stored.
type credentialRecord struct {
	Credential
	Secrets []secret `json:"secrets,omitempty"` // the newest first; at most two
}

// secret is what a password or key is checked by.
type secret struct {
	ID      string        `json:"id"`
	Hash    string        `json:"hash,omitempty"`   // argon2id in PHC form
	Digest  []byte        `json:"digest,omitempty"` // SHA-256 of an API key
	Scram   *scramRecord  `json:"scram,omitempty"`
	Expires time.Time     `json:"expires,omitzero"` // of a secret that another one has replaced
	params  *argon2Params // parsed from Hash
}

type scramRecord struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
}

func (s *scramRecord) verifier() sasl.Verifier {
	return sasl.Verifier{Salt: s.Salt, Iterations: s.Iterations, StoredKey: s.StoredKey, ServerKey: s.ServerKey}
}

// useRecord is when and whence a credential came in. It is written now and then, and may be lost.
type useRecord struct {
	Last  time.Time  `json:"last"`
	Addrs []usedAddr `json:"addrs,omitempty"` // the latest first; at most maxAddrs
}

type usedAddr struct {
	Addr netip.Prefix `json:"addr"`
	Last time.Time    `json:"last"`
}

func (r *credentialRecord) encode() ([]byte, error) { return encode("credential", r) }
func (t *Tenant) encode() ([]byte, error)           { return encode("tenant", t) }
func (d *Domain) encode() ([]byte, error)           { return encode("domain", d) }

func encode(what string, v any) ([]byte, error) {
	p, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	return p, nil
}

func decodeCredential(value []byte) (*credentialRecord, error) {
	r := new(credentialRecord)
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("decode credential: %w", err)
	}
	for i := range r.Secrets {
		if s := &r.Secrets[i]; s.Hash != "" {
			p, err := parsePHC(s.Hash)
			if err != nil {
				return nil, fmt.Errorf("credential %s: %w", r.ID, err)
			}
			s.params = p
		}
	}
	return r, nil
}

func domainKey(name, tenant string) string { return domainPrefix + name + "/" + tenant }

func isID(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" && s[0] != '.' && s[0] != '-'
}
