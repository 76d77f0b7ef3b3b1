package config

// TLS says which certificates there are.
type TLS struct {
	// Certificates from files. A file that changes is taken over within 10 seconds, without a reload.
	Certificates []Certificate `yaml:"certificates"`

	// Certificates from an authority that speaks ACME (RFC 8555).
	ACME ACME `yaml:"acme"`
}

// Certificate is a certificate with its key.
type Certificate struct {
	// A short name by which listeners refer to it.
	Name string `yaml:"name"`

	// The file with the certificate and those it needs on the way to the root (PEM).
	Certificate string `yaml:"certificate"`

	// The file with the private key (PEM), readable for the server alone.
	Key string `yaml:"key"`
}

// ACME gets certificates by itself.
type ACME struct {
	// The host names to get certificates for. Empty: off.
	Domains []string `yaml:"domains" restart:"yes"`

	// The address that the authority writes to when something is wrong.
	Email string `yaml:"email" restart:"yes"`

	// The authority's directory URL. Default: Let's Encrypt.
	Directory string `yaml:"directory" restart:"yes"`

	// A file with certificates (PEM) that the authority's own HTTPS is checked with. Default: those of the system.
	CA string `yaml:"ca" restart:"yes"`

	// How ownership of the names is shown: "http-01", "tls-alpn-01", or "dns-01".
	Challenge string `yaml:"challenge" enum:"http-01,tls-alpn-01,dns-01" restart:"yes"`

	// Where challenges are answered: port 80 of the names must lead here for http-01, port 443 for tls-alpn-01.
	Listen string `yaml:"listen" restart:"yes"`

	// Who sets records for dns-01: "rfc2136" or "cloudflare".
	DNSProvider string `yaml:"dns_provider" enum:"rfc2136,cloudflare" restart:"yes"`

	// For rfc2136: the name server that takes updates, such as "192.0.2.53:53".
	DNSServer string `yaml:"dns_server" restart:"yes"`

	// For rfc2136: the name of the TSIG key.
	DNSKeyName string `yaml:"dns_key_name" restart:"yes"`

	// For rfc2136: the algorithm of the TSIG key, such as "hmac-sha256".
	DNSKeyAlgorithm string `yaml:"dns_key_algorithm" restart:"yes"`

	// The file with the TSIG key (base64) or the API token.
	DNSSecretFile string `yaml:"dns_secret_file" restart:"yes"`
}

// Tenant is what the operator grants one tenant. Tenants can be made at run time too; those in the file always exist.
type Tenant struct {
	// The short name that listeners, events, metrics and commands call the tenant by.
	ID string `yaml:"id"`

	// The name for people.
	Name string `yaml:"name"`

	// Domains that the tenant may send from without proof by DNS: a name ("example.com") or everything below it
	// ("*.example.com").
	Domains []string `yaml:"domains"`

	// Checks the senders of mail that comes from trusted_networks of a listener of this tenant, as those of clients that have
	// logged in are checked.
	CheckTrusted bool `yaml:"check_trusted"`

	// Most octets per second that the tenant may send, over all listeners. 0: no limit.
	Bandwidth Size `yaml:"bandwidth" range:"0..100GiB"`

	// How much the tenant may send. What is not set here is taken from quotas.tenant.
	Quota Quota `yaml:"quota"`

	// The TLS that sessions must have when they carry mail of this tenant, as in delivery.tls; the stricter of both counts.
	// "default": as delivery.tls and routes say.
	TLS string `yaml:"tls" enum:"default,none,opportunistic,encrypted,verified"`
}

// Quotas bound how much may be sent, by whom.
type Quotas struct {
	// Of each tenant that sets none of its own.
	Tenant Quota `yaml:"tenant"`

	// Of each credential that sets none of its own.
	Credential Quota `yaml:"credential"`

	// Of each client address: an IPv4 address, or an IPv6 /64 network.
	Client Quota `yaml:"client"`
}

// Quota is how much one sender may send. 0 sets no limit. A minute, an hour, a day is the one that ends now, not that of
// the clock.
type Quota struct {
	// Messages in a minute.
	MessagesPerMinute int `yaml:"messages_per_minute" range:"0..1000000000"`
	// Messages in an hour.
	MessagesPerHour int `yaml:"messages_per_hour" range:"0..1000000000"`
	// Messages in a day.
	MessagesPerDay int `yaml:"messages_per_day" range:"0..1000000000"`

	// Recipients in a minute, each counted once for each message.
	RecipientsPerMinute int `yaml:"recipients_per_minute" range:"0..1000000000"`
	// Recipients in an hour.
	RecipientsPerHour int `yaml:"recipients_per_hour" range:"0..1000000000"`
	// Recipients in a day.
	RecipientsPerDay int `yaml:"recipients_per_day" range:"0..1000000000"`

	// Octets of messages in a minute.
	BytesPerMinute Size `yaml:"bytes_per_minute" range:"0..1000000GiB"`
	// Octets of messages in an hour.
	BytesPerHour Size `yaml:"bytes_per_hour" range:"0..1000000GiB"`
	// Octets of messages in a day.
	BytesPerDay Size `yaml:"bytes_per_day" range:"0..1000000GiB"`

	// Different recipients in a minute, counted with an error of a few percent above 1000.
	UniqueRecipientsPerMinute int `yaml:"unique_recipients_per_minute" range:"0..1000000000"`
	// Different recipients in an hour.
	UniqueRecipientsPerHour int `yaml:"unique_recipients_per_hour" range:"0..1000000000"`
	// Different recipients in a day.
	UniqueRecipientsPerDay int `yaml:"unique_recipients_per_day" range:"0..1000000000"`

	// What a sender is told who has used up a day: "defer" (451, the client tries again) or "refuse" (550, it gives up).
	OverDay string `yaml:"over_day" enum:"defer,refuse"`
}

// Auth says how clients prove who they are, beyond the credentials that "godwit credential" makes.
type Auth struct {
	// Issuers whose access tokens are taken by OAUTHBEARER (RFC 7628) and XOAUTH2.
	OAuth []OAuth `yaml:"oauth"`
}

// OAuth is one issuer of access tokens.
type OAuth struct {
	// A short name for logs and metrics.
	Name string `yaml:"name"`

	// The issuer's URL, as it stands in "iss" of its tokens. Its keys are found by OpenID Connect Discovery.
	Issuer string `yaml:"issuer"`

	// The value that "aud" of a token must have.
	Audience string `yaml:"audience"`

	// The URL of the keys (JWKS), for issuers without Discovery.
	JWKS string `yaml:"jwks"`

	// The URL that tells whether an opaque token is good (RFC 7662). With it tokens are not read as JWT.
	Introspection string `yaml:"introspection"`

	// The client id that introspection is asked with.
	ClientID string `yaml:"client_id"`

	// The file with the client secret that introspection is asked with.
	ClientSecretFile string `yaml:"client_secret_file"`

	// The claim that names the credential's login.
	LoginClaim string `yaml:"login_claim"`

	// A file with certificates (PEM) that the issuer's HTTPS is checked with. Default: those of the system.
	CA string `yaml:"ca"`
}
