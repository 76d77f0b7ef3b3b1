package config

import "net/netip"

// Listener is one address that takes mail over SMTP.
type Listener struct {
	// A short name for logs, metrics and events: lower-case letters, digits and hyphens. Must be unique.
	Name string `yaml:"name" restart:"yes"`

	// The address and port to listen on, such as "127.0.0.1:2525" or "[::1]:2525". Port 0 takes any free port.
	Address string `yaml:"address" restart:"yes"`

	// Clients in these networks may send mail to any domain without logging in. Everyone else must log in, or is refused.
	TrustedNetworks []netip.Prefix `yaml:"trusted_networks"`

	// How connections are protected: "off", "starttls" (RFC 3207), or "implicit", which begins with the handshake (RFC 8314, 3.3).
	TLS string `yaml:"tls" enum:"off,starttls,implicit" restart:"yes"`

	// The name of the certificate in tls.certificates. Empty: the one that fits the name the client asks for, else the first.
	Certificate string `yaml:"certificate"`

	// Whether clients log in: "off", "optional", or "required", which refuses mail from everyone who has not (RFC 4954).
	Auth string `yaml:"auth" enum:"off,optional,required"`

	// The SASL mechanisms offered. Empty: all that the connection and the configuration allow.
	AuthMechanisms []string `yaml:"auth_mechanisms" enum:"PLAIN,LOGIN,SCRAM-SHA-256,SCRAM-SHA-256-PLUS,OAUTHBEARER,XOAUTH2,EXTERNAL"`

	// Lets passwords be sent without TLS. For listeners on a loopback address alone.
	InsecureAuth bool `yaml:"insecure_auth"`

	// Whether clients are asked for a certificate in the handshake: "off", "optional", or "required", which ends the
	// handshake of everyone who has none of client_ca.
	ClientCertificates string `yaml:"client_certificates" enum:"off,optional,required" restart:"yes"`

	// The file with the certificates (PEM) of the authorities that sign client certificates.
	ClientCA string `yaml:"client_ca" restart:"yes"`

	// Recipient domains that anyone may send to: a name ("example.com") or everything below it ("*.example.com"). What
	// such a domain's mail is for is decided by routes.
	RelayDomains []string `yaml:"relay_domains"`

	// Clients outside these networks are refused before the greeting. Empty: everyone may connect.
	AllowNetworks []netip.Prefix `yaml:"allow_networks"`

	// Clients in these networks are refused before the greeting, whatever allow_networks says.
	DenyNetworks []netip.Prefix `yaml:"deny_networks"`

	// Proxies in front of the listener: connections from these networks must begin with a PROXY header, version 1 or 2,
	// and nobody else may send one. The client that a proxy names is never trusted by its address.
	ProxyProtocol []netip.Prefix `yaml:"proxy_protocol" restart:"yes"`

	// Peers in these networks may use XCLIENT and XFORWARD. The client that they name is never trusted by its address.
	XClient []netip.Prefix `yaml:"xclient" restart:"yes"`

	// Most octets per second that all clients of the listener together may send. 0: no limit.
	Bandwidth Size `yaml:"bandwidth" range:"0..100GiB"`

	// Whether headers are put in order: "submission" completes mail as it comes from programs that write it (RFC 6409, 8),
	// "relay" leaves it as it is, "auto" is submission for clients that have logged in and relay for all others.
	Headers string `yaml:"headers" enum:"auto,submission,relay"`

	// What is done to find out who mail from outside is from, that is, mail to relay_domains from clients that have neither logged in
	// nor are in trusted_networks: "off" nothing, "report" tells it in events and metrics, "mark" writes it into the message too
	// (Authentication-Results), "reject" refuses what fails DMARC under a policy of reject. "auto" is mark with relay_domains, and
	// off without.
	Verify string `yaml:"verify" enum:"auto,off,report,mark,reject"`

	// Lets trusted_networks hold the whole internet. What that makes is abused within hours.
	OpenRelay bool `yaml:"open_relay"`

	// Repairs line ends instead of refusing them: a bare LF becomes CRLF and a bare CR is dropped. The end of a message
	// is CRLF.CRLF all the same. For old applications on trusted networks only.
	Normalize bool `yaml:"normalize" restart:"yes"`

	// The tenant that owns the mail of clients that have not logged in.
	Tenant string `yaml:"tenant"`

	// The stream its mail belongs to: a key of delivery.max_age.
	Stream string `yaml:"stream"`

	// Limits for this listener alone. What is not set here is taken from the top-level limits.
	Limits Limits `yaml:"limits"`
}
