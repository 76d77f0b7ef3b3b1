package config

import (
	"net/netip"
	"time"
)

// Config is the whole configuration file. Every value is filled: what the file does not say has its default. A Config
// is not changed after [Load] returned it, so it may be read by any number of goroutines.
//
// The comments of the fields below are the reference documentation that `godwit config schema` and
// docs/reference/config.md show. Tags: `range` bounds a number, size or duration; `enum` lists the words allowed;
// `restart` marks what a reload cannot change.
type Config struct {
	// The name this server calls itself in greetings, EHLO, trace headers and reports: a fully qualified domain name
	// that resolves to the addresses mail leaves from. Default: the machine's name.
	Hostname string `yaml:"hostname" restart:"yes"`

	// The directory that holds the journal, the spool index, the store, the event log and the admin socket. It is
	// created if its parent exists. One server owns it at a time.
	DataDir string `yaml:"data_dir" restart:"yes"`

	// How long a stopping server waits for sessions and attempts in flight before it breaks them off. What is broken
	// off stays in the spool.
	DrainTimeout time.Duration `yaml:"drain_timeout" range:"1s..1h" restart:"yes"`

	// Where mail comes in. Nothing listens that is not named here; an empty list makes a server that only delivers what
	// it still holds.
	Listeners []Listener `yaml:"listeners"`

	// Certificates for listeners.
	TLS TLS `yaml:"tls"`

	// What the operator grants tenants.
	Tenants []Tenant `yaml:"tenants"`

	// How much may be sent, by whom.
	Quotas Quotas `yaml:"quotas"`

	// How clients prove who they are.
	Auth Auth `yaml:"auth"`

	// The HTTP endpoint for machines: metrics and health.
	HTTP HTTP `yaml:"http"`

	// Limits on what clients may send, for all listeners that do not set their own.
	Limits Limits `yaml:"limits"`

	// How mail leaves.
	Delivery Delivery `yaml:"delivery"`

	// How mail from outside is checked.
	Inbound Inbound `yaml:"inbound"`

	// Signatures on mail that is sent (DKIM, RFC 6376).
	DKIM DKIM `yaml:"dkim"`

	// Aggregate reports on TLS and DMARC, that go out and that come in.
	Reports Reports `yaml:"reports"`

	// The operator's override of MX routing. The most specific domain pattern wins, whatever the order.
	Routes []Route `yaml:"routes"`

	// How names are looked up.
	DNS DNS `yaml:"dns"`

	// The journal: where accepted mail is kept before it is acknowledged.
	Journal Journal `yaml:"journal"`

	// The event log: one JSON object per line for everything that happens to mail.
	Events Events `yaml:"events"`

	// The record of administrative acts.
	Audit Audit `yaml:"audit"`

	// Encryption of what is kept on disk.
	Encryption Encryption `yaml:"encryption"`

	// The log of the program itself, on standard error.
	Log Log `yaml:"log"`

	// How much memory is given to what.
	Memory Memory `yaml:"memory"`

	source
}

// HTTP is the endpoint for machines.
type HTTP struct {
	// The address of /metrics, /healthz and /readyz, such as "127.0.0.1:8080". It needs no password: keep it on a
	// private address. Empty: off.
	Address string `yaml:"address" restart:"yes"`

	// Whether the administrators' interface is served there too, for clients that present an API key as bearer token
	// (RFC 6750). The address must be a loopback one, since keys would be readable on the way.
	API bool `yaml:"api" restart:"yes"`
}

// Limits bound what one client can ask of a listener.
type Limits struct {
	// Largest message accepted, announced by SIZE (RFC 1870; RFC 5321, 4.5.3.1.7 asks for 64 KiB at least).
	MessageSize Size `yaml:"message_size" range:"64KiB..1GiB"`

	// Most recipients of one message; more are answered 452 and the client sends them again (RFC 5321, 4.5.3.1.8 asks
	// for 100 at least).
	Recipients int `yaml:"recipients" range:"100..100000"`

	// Most sessions at once on the listener.
	Sessions int `yaml:"sessions" range:"1..1000000"`

	// Most sessions at once from one client: an IPv4 address, or an IPv6 /64 network.
	SessionsPerClient int `yaml:"sessions_per_client" range:"1..1000000"`

	// How long a client may be silent between commands (RFC 5321, 4.5.3.2.7 asks for 5 minutes).
	CommandTimeout time.Duration `yaml:"command_timeout" range:"1s..1h"`

	// How long a client may be silent within a message.
	DataTimeout time.Duration `yaml:"data_timeout" range:"1s..1h"`

	// How long a client may refuse to read a reply.
	WriteTimeout time.Duration `yaml:"write_timeout" range:"1s..1h"`

	// How long one session may last in all; it ends with 421 between two messages.
	SessionAge time.Duration `yaml:"session_age" range:"1m..7d"`

	// Slowest steady rate of a message, in octets per second, so that a client cannot hold a session open a byte at a
	// time.
	MinDataRate Size `yaml:"min_data_rate" range:"1..10MB"`

	// Longest command line in octets, its CRLF included (RFC 5321, 4.5.3.1.4 asks for 512 at least; extensions add to
	// it).
	CommandLine Size `yaml:"command_line" range:"512..64KiB"`

	// Longest line of a message in octets, without its CRLF (RFC 5321, 4.5.3.1.6 asks for 998 at least, and forbids senders
	// more; many send more all the same).
	TextLine Size `yaml:"text_line" range:"998..1MiB"`

	// Largest header block of a message.
	HeaderSize Size `yaml:"header_size" range:"4KiB..16MiB"`

	// Commands refused as wrong before the session is ended with 421.
	BadCommands int `yaml:"bad_commands" range:"1..10000"`

	// Received headers a message may carry before it is taken for a loop (RFC 5321, 6.3 asks for 100 at least).
	Hops int `yaml:"hops" range:"1..1000"`
}

// Delivery says how mail leaves.
type Delivery struct {
	// The port of the hosts that MX records name. Routes name their own.
	Port int `yaml:"port" range:"1..65535" restart:"yes"`

	// The name given in EHLO. Default: hostname.
	Hello string `yaml:"hello" restart:"yes"`

	// The local address that connections leave from. Empty: the system chooses.
	SourceAddress string `yaml:"source_address" restart:"yes"`

	// Private, loopback and otherwise unusable networks that hosts found in DNS may nevertheless point to. Hosts
	// written in routes need no entry here.
	AllowedNetworks []netip.Prefix `yaml:"allowed_networks"`

	// How long delivery of a message is tried, by stream. "default" stands for each stream that is not named.
	MaxAge map[string]time.Duration `yaml:"max_age" range:"1m..30d"`

	// The pause after each attempt that failed for the time being: the first value after the first attempt, and so on;
	// the last one repeats until max_age.
	Retry []time.Duration `yaml:"retry" range:"1s..7d"`

	// How far a pause is stretched or shortened at random, in percent, so that mail deferred together does not return
	// together.
	RetryJitter int `yaml:"retry_jitter" range:"0..50"`

	// How long a message waits before its sender is told of the delay.
	DelayNoticeAfter time.Duration `yaml:"delay_notice_after" range:"1m..30d"`

	// Who is told of a delay: "asked" tells senders who asked for it (NOTIFY=DELAY, RFC 3461, 4.1), "always" everyone
	// who did not forbid it, "never" nobody.
	DelayNotices string `yaml:"delay_notices" enum:"asked,always,never"`

	// Most attempts at once, over all queues.
	MaxAttemptsInFlight int `yaml:"max_attempts_in_flight" range:"1..100000"`

	// Most connections at once for one queue, that is for one destination domain of one tenant.
	ConnectionsPerQueue int `yaml:"connections_per_queue" range:"1..10000"`

	// How long one address may take to answer a connection attempt.
	ConnectTimeout time.Duration `yaml:"connect_timeout" range:"1s..10m" restart:"yes"`

	// How long a connection is kept for the next message.
	IdleTimeout time.Duration `yaml:"idle_timeout" range:"1s..10m" restart:"yes"`

	// Messages sent over one connection before it is closed.
	TransactionsPerSession int `yaml:"transactions_per_session" range:"1..1000000" restart:"yes"`

	// The TLS that sessions must have where no route and no tenant says more: "none" never asks for it; "opportunistic" takes
	// what it can get, and goes on in the clear where TLS cannot be had (RFC 7435); "encrypted" demands TLS 1.2 or later of
	// whoever answers; "verified" demands a host that proves to be the one that was meant.
	TLS string `yaml:"tls" enum:"none,opportunistic,encrypted,verified"`

	// Whether what receivers publish about their TLS is obeyed: MTA-STS (RFC 8461) and DANE (RFC 7672).
	TLSPolicies bool `yaml:"tls_policies" restart:"yes"`

	// What is made of the experience that a host always had TLS.
	TLSFloor TLSFloor `yaml:"tls_floor"`
}

// Route overrides MX routing for some domains.
type Route struct {
	// Recipient domains: a name ("example.com"), everything below it ("*.example.com"), or everything ("*").
	Domains []string `yaml:"domains"`

	// Hosts to try in this order: a name or address, with a port if it is not delivery.port: "relay.example.com:587",
	// "[2001:db8::1]:25".
	Hosts []string `yaml:"hosts"`

	// The protocol the hosts speak: "smtp", or "lmtp" (RFC 2033).
	Protocol string `yaml:"protocol" enum:"smtp,lmtp"`

	// The TLS that sessions with the hosts must have, as in delivery.tls, or "pinned": the hosts have one of the keys in
	// tls_pins. "default": as delivery.tls says.
	TLS string `yaml:"tls" enum:"default,none,opportunistic,encrypted,verified,pinned"`

	// How TLS begins: "starttls", "implicit" (with the connection), or "auto", which is implicit on port 465.
	TLSForm string `yaml:"tls_form" enum:"auto,starttls,implicit"`

	// With tls: pinned, the SHA-256 of public keys (SubjectPublicKeyInfo) one of which the hosts have, such as
	// "sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=".
	TLSPins []string `yaml:"tls_pins"`

	// With tls: verified, the name that must stand in the hosts' certificate. Empty: the name in hosts.
	TLSName string `yaml:"tls_name"`

	// With tls: verified, a file with the certificates (PEM) to trust. Empty: those of the system.
	TLSCAFile string `yaml:"tls_ca_file"`

	// How this server logs in there.
	Login Login `yaml:"login"`
}

// DNS says how names are looked up.
type DNS struct {
	// Name servers to ask, such as "127.0.0.1" or "[::1]:5353". Empty: those of /etc/resolv.conf.
	Servers []string `yaml:"servers" restart:"yes"`

	// How long one server may take to answer one question.
	Timeout time.Duration `yaml:"timeout" range:"100ms..1m" restart:"yes"`

	// Whose word is believed that an answer was validated with DNSSEC, without which there is no DANE: "loopback": of the name
	// servers above that run on this machine; "all": of every server, for where the way to them is safe from tampering;
	// "none". Those on this machine must be validating resolvers, such as unbound.
	DNSSEC string `yaml:"dnssec" enum:"loopback,all,none" restart:"yes"`
}

// Journal sizes the journal.
type Journal struct {
	// Size of one segment file. Space is given back segment by segment.
	SegmentSize Size `yaml:"segment_size" range:"1MiB..1GiB" restart:"yes"`

	// Free space of the disk that is left for delivering: below it no mail is accepted (452 4.3.1), while outcomes are
	// still recorded and space is given back; accepting goes on by itself when there is room again.
	Reserve Size `yaml:"reserve" range:"16MiB..64GiB" restart:"yes"`
}

// Events says how the event log is written and kept.
type Events struct {
	// Directory of the event log. Default: events below data_dir.
	Dir string `yaml:"dir" restart:"yes"`

	// The current file is closed, compressed and followed by a new one when it has grown to this size, or is as old as
	// max_age.
	MaxSize Size `yaml:"max_size" range:"1MiB..16GiB"`

	// How long the current file is written to, whatever its size.
	MaxAge time.Duration `yaml:"max_age" range:"1m..366d"`

	// Closed files kept; the oldest go first.
	Keep int `yaml:"keep" range:"1..100000"`

	// How long a closed file is kept.
	KeepFor time.Duration `yaml:"keep_for" range:"1h..3660d"`

	// How closed files are compressed: "gzip" can be read everywhere, "zstd" costs half the time and is searched faster.
	Compress string `yaml:"compress" enum:"gzip,zstd,none"`
}

// Log is about the program's own log.
type Log struct {
	// The least important records to write.
	Level string `yaml:"level" enum:"debug,info,warn,error"`

	// "text" for people, "json" for machines.
	Format string `yaml:"format" enum:"text,json" restart:"yes"`
}
