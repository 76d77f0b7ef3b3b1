// Package sasl holds the mechanisms of the Simple Authentication and Security Layer (RFC 4422) that mail uses: PLAIN
// (RFC 4616), LOGIN, EXTERNAL (RFC 4422, A), SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), OAUTHBEARER
// (RFC 7628) and XOAUTH2.
//
// A mechanism is a dialog of challenges and responses, octets without any framing: the protocol around it, such as
// SMTP's AUTH command (RFC 4954), encodes and limits them. Each constructor takes the one question that the mechanism
// asks, as a function, and knows nothing of where credentials come from:
//
//	server := sasl.Plain(func(ctx context.Context, authzid, authcid, password string) error {
//		return directory.Check(ctx, authcid, password) // nil, or wraps ErrFailed or ErrTemporary
//	})
//	challenge, done, err := server.Next(ctx, response)
//
// Errors say who is to blame: [ErrMalformed] the client's program, [ErrFailed] its credentials, [ErrTemporary] us. A
// server must answer all causes of ErrFailed with the same words after the same time, so that nobody learns which names
// exist.
//
// Names and passwords are prepared by PRECIS's OpaqueString profile (RFC 8265, 4.2) before they are handed on, so that
// two ways to type the same letters are one password; see [Prepare].
package sasl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// Names of the mechanisms as they stand on the wire.
const (
	NamePlain           = "PLAIN"
	NameLogin           = "LOGIN"
	NameExternal        = "EXTERNAL"
	NameScramSHA256     = "SCRAM-SHA-256"
	NameScramSHA256Plus = "SCRAM-SHA-256-PLUS"
	NameOAuthBearer     = "OAUTHBEARER"
	NameXOAuth2         = "XOAUTH2"
)

// Errors of an exchange. Those that a Server returns wrap one of them; an error that wraps none is a fault of ours.
var (
	ErrMalformed = errors.New("sasl: malformed response")    // the client breaks the mechanism's rules
	ErrFailed    = errors.New("sasl: authentication failed") // credentials are not valid, for whatever reason
	ErrTemporary = errors.New("sasl: cannot tell now")       // the credentials could not be checked
)

// Server is the server's side of one exchange (RFC 4422, 3). It is good for one exchange and one goroutine.
type Server interface {
	// Next takes the client's response, nil if it sent no initial response, and returns the next challenge, which may
	// be empty. done tells that the exchange has succeeded; the challenge is empty then. After an error or done the
	// exchange is over.
	Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error)
}

// Client is the client's side of one exchange. It is good for one exchange and one goroutine.
type Client interface {
	// Start returns the name of the mechanism and the initial response, nil if there is none.
	Start() (mechanism string, initial []byte, err error)
	// Next answers a challenge.
	Next(challenge []byte) (response []byte, err error)
}

// longest bounds each name, password and token in octets. RFC 4616, 2, asks for 255 at least; tokens are longer.
const longest = 8 << 10

// maxName bounds a name in octets.
const maxName = 255

// malformed wraps ErrMalformed with what is wrong, for logs.
func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// Prepare brings a name or password into the form in which it is compared and hashed: the OpaqueString profile of
// PRECIS (RFC 8265, 4.2), which composes letters and accents (NFC), makes every kind of space the ASCII one, and refuses
// control characters and the empty string. Printable ASCII is left as it is. SASLprep (RFC 4013), which the SCRAM RFCs
// name, differs from it only in characters of compatibility such as full-width letters.
func Prepare(s string) (string, error) {
	if s == "" {
		return "", malformed("empty name or password")
	}
	if len(s) > longest {
		return "", malformed("name or password too long")
	}
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return "", malformed("control character in name or password")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if ascii {
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", malformed("not valid UTF-8")
	}
	out, err := precis.OpaqueString.String(s)
	if err != nil {
		return "", malformed("character that no name or password may have")
	}
	return out, nil
}

// prepareName prepares the name of an identity; an empty one is left empty.
func prepareName(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if len(s) > maxName {
		return "", malformed("name too long")
	}
	return Prepare(s)
}

// begin is what every mechanism does with a first call that brings no response.
func begin(response []byte, begun *bool) (wait bool) {
	if *begun {
		return false
	}
	*begun = true
	return response == nil
}

// over is the error of a call after the end of an exchange.
func over() error { return malformed("the exchange is over") }

// saslName decodes the name of a GS2 header (RFC 5802, 5.1): "=2C" is a comma and "=3D" an equals sign.
func saslName(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b.WriteByte(s[i])
			continue
		}
		switch {
		case strings.HasPrefix(s[i:], "=2C"):
			b.WriteByte(',')
		case strings.HasPrefix(s[i:], "=3D"):
			b.WriteByte('=')
		default:
			return "", malformed("name is not well encoded")
		}
		i += 2
	}
	return b.String(), nil
}

// encodeName encodes a name for a GS2 header.
func encodeName(s string) string {
	return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s)
}
