package smtpclient

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Timeouts bounds the wait in each phase of a session (RFC 5321, 4.5.3.2). Zero means the default named beside
// each.
type Timeouts struct {
	Greeting  time.Duration // for the banner, 5 min
	Hello     time.Duration // for the reply to EHLO, HELO or LHLO, 5 min
	Mail      time.Duration // for the reply to MAIL and to RSET before it, 5 min
	Rcpt      time.Duration // for the reply to each RCPT, 5 min
	DataInit  time.Duration // for the reply to DATA, 2 min
	DataBlock time.Duration // for the peer to take the next 256 KiB of the body, 3 min
	DataDone  time.Duration // for the reply to the end of the data, 10 min
	Quit      time.Duration // for the reply to QUIT, 10 s: nothing depends on it
	TLS       time.Duration // for the reply to STARTTLS, and as much again for the handshake, 30 s
	Auth      time.Duration // for each reply to AUTH, 2 min
}

// Options configures a session. The zero value of every field but Hello is its default.
type Options struct {
	// Hello is the name given to EHLO: a domain name or an address literal (RFC 5321, 4.1.1.1). Empty means
	// "localhost".
	Hello string
	// LMTP speaks LMTP (RFC 2033): LHLO, and a reply for each accepted recipient after the data.
	LMTP     bool
	Timeouts Timeouts
	// ImplicitTLS puts TLS over the connection before the first octet (RFC 8314, 3.3). It is not changed, and may be
	// shared.
	ImplicitTLS *tls.Config

	// Eager is the largest body in octets that is sent in one write with its envelope, before any recipient is
	// known to be accepted. It happens only with PIPELINING and CHUNKING, and on a session whose last transaction
	// was accepted whole. Zero means 64 KiB, a negative value never.
	Eager int64
	// Allow8Bit sends 8-bit bodies to a peer without 8BITMIME as they are, instead of refusing them (RFC 6152, 3).
	Allow8Bit bool
	// NoPipelining and NoChunking leave an extension unused although the peer offers it: the way around a broken
	// peer.
	NoPipelining bool
	NoChunking   bool

	// Logger gets the dialog at [LevelTranscript], bodies left out. Nil discards.
	Logger *slog.Logger
}

// LevelTranscript is the level of the lines that show the dialog: one below debug.
const LevelTranscript = slog.LevelDebug - 4

const defaultEager = 64 << 10

func (o Options) withDefaults() Options {
	if o.Hello == "" {
		o.Hello = "localhost"
	}
	if o.Eager == 0 {
		o.Eager = defaultEager
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	usual := DefaultTimeouts()
	for i, limit := range o.Timeouts.all() {
		if *limit <= 0 {
			*limit = *usual.all()[i]
		}
	}
	return o
}

// DefaultTimeouts returns the limits that hold where nothing else is said.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Greeting: 5 * time.Minute, Hello: 5 * time.Minute, Mail: 5 * time.Minute, Rcpt: 5 * time.Minute,
		DataInit: 2 * time.Minute, DataBlock: 3 * time.Minute, DataDone: 10 * time.Minute, Quit: 10 * time.Second,
		TLS: 30 * time.Second, Auth: 2 * time.Minute,
	}
}

// Divided returns limits that are n times shorter, for demonstrations and tests.
func (t Timeouts) Divided(n int) Timeouts {
	for _, limit := range t.all() {
		*limit /= time.Duration(n)
	}
	return t
}

func (t *Timeouts) all() []*time.Duration {
	return []*time.Duration{
		&t.Greeting, &t.Hello, &t.Mail, &t.Rcpt, &t.DataInit, &t.DataBlock, &t.DataDone, &t.Quit,
		&t.TLS, &t.Auth,
	}
}
