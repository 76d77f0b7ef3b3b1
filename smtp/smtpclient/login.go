package smtpclient

import (
	"cmp"
	"context"
	"encoding/base64"
	"log/slog"
	"slices"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Login logs in with the best mechanism that the peer offers of SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN and LOGIN
// (RFC 4954). It does so over TLS alone; whether the peer at the other end of it is the one that may learn the password
// is for the caller to have made sure. An error is an *Error and ends the session.
func (c *Conn) Login(ctx context.Context, name, password string) error {
	if c.tls == nil {
		return &Error{Phase: PhaseAuth, Err: ErrNoTLS}
	}
	offered := func(mechanism string) bool { return slices.Contains(c.ext.Auth, mechanism) }
	if offered(sasl.NameScramSHA256Plus) {
		if binding := sasl.TLSExporter(c.TLS()); binding != nil {
			return c.Authenticate(ctx, sasl.ScramSHA256Client(name, password, binding))
		}
	}
	switch {
	case offered(sasl.NameScramSHA256):
		return c.Authenticate(ctx, sasl.ScramSHA256Client(name, password, nil))
	case offered(sasl.NamePlain):
		return c.Authenticate(ctx, sasl.PlainClient("", name, password))
	case offered(sasl.NameLogin):
		return c.Authenticate(ctx, sasl.LoginClient(name, password))
	}
	return &Error{Phase: PhaseAuth, Err: ErrNoMechanism}
}

// Bounds of an exchange. An initial response that makes the command longer than every peer takes waits for its
// challenge (RFC 4954, 4).
const (
	longestCommand = 510
	maxChallenges  = 16
)

// Authenticate makes one exchange of a mechanism (RFC 4954, 4). An error is an *Error and ends the session: its Reply if
// the peer refused, its Err if the peer could not prove what the mechanism wants of it.
func (c *Conn) Authenticate(ctx context.Context, client sasl.Client) error {
	if c.over != nil || !c.started || c.closed.Load() {
		return &Error{Phase: PhaseAuth, Err: ErrClosed}
	}
	mechanism, initial, err := client.Start()
	if err != nil {
		return c.fail(PhaseAuth, err)
	}
	stop, err := c.attach(ctx)
	if err != nil {
		return c.fail(PhaseAuth, err)
	}
	defer c.detach(stop)
	line := append([]byte("AUTH "), mechanism...)
	held := false
	switch n := base64.StdEncoding.EncodedLen(len(initial)); {
	case initial == nil:
	case len(initial) == 0:
		line = append(line, " ="...)
	case len(line)+1+n > longestCommand:
		held = true
	default:
		line = base64.StdEncoding.AppendEncode(append(line, ' '), initial)
	}
	for range maxChallenges {
		reply, err := c.saySecret(mechanism, line)
		if err != nil {
			return err
		}
		if reply.Code != continueAuth {
			return c.authenticated(client, reply)
		}
		response := initial
		if !held {
			challenge, err := base64.StdEncoding.DecodeString(reply.Text)
			if err != nil {
				return c.fail(PhaseAuth, protocolError("challenge is not base64"))
			}
			if response, err = client.Next(challenge); err != nil {
				return c.fail(PhaseAuth, err)
			}
		}
		held = false
		line = base64.StdEncoding.AppendEncode(line[:0], response)
	}
	return c.fail(PhaseAuth, protocolError("AUTH does not end"))
}

// continueAuth is the reply that carries a challenge (RFC 4954, 4).
const continueAuth = 334

func (c *Conn) authenticated(client sasl.Client, reply smtp.Reply) error {
	if !reply.Positive() {
		return c.refused(PhaseAuth, reply)
	}
	if proof, ok := client.(interface{ Verified() bool }); ok && !proof.Verified() {
		return c.fail(PhaseAuth, protocolError("peer says that we are logged in and has not proven that it knows the password"))
	}
	return nil
}

// saySecret is say for a line that no log may show.
func (c *Conn) saySecret(mechanism string, line []byte) (smtp.Reply, error) {
	if c.reader.buffered() > 0 {
		return smtp.Reply{}, c.unsolicited(PhaseAuth)
	}
	if c.transcript() {
		c.o.Logger.Log(context.Background(), LevelTranscript, "commands sent", slog.String("commands", "AUTH "+mechanism+" ..."))
	}
	c.blockLimit = c.o.Timeouts.Auth
	c.limitWrite()
	_, writeErr := c.wire.Write(append(line, '\r', '\n'))
	limit := c.o.Timeouts.Auth
	if writeErr != nil {
		limit = min(limit, salvage)
	}
	reply, err := c.readReply(limit, memoryOther, false)
	if err != nil {
		return reply, c.fail(PhaseAuth, cmp.Or(writeErr, err))
	}
	return reply, nil
}
