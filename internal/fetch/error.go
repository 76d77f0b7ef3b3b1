package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Kind says why an exchange gave nothing. The set is closed.
type Kind uint8

const (
	Forbidden   Kind = iota + 1 // the URL or the address is none that is asked
	Lookup                      // the host's name leads to no address
	Connect                     // no connection
	Certificate                 // the certificate does not hold: not trusted, expired, another name
	Handshake                   // TLS failed for another reason
	Timeout
	Redirect // the answer leads elsewhere
	Status   // the answer is no success
	TooLarge
	Broken // the connection ended in the middle, or it was no HTTP
)

var kindNames = [...]string{
	Forbidden: "forbidden", Lookup: "lookup", Connect: "connect", Certificate: "certificate", Handshake: "handshake",
	Timeout: "timeout", Redirect: "redirect", Status: "status", TooLarge: "too_large", Broken: "broken",
}

// String returns the stable snake-case name.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return "unknown"
}

// Kinds lists all kinds.
func Kinds() []Kind {
	return []Kind{Forbidden, Lookup, Connect, Certificate, Handshake, Timeout, Redirect, Status, TooLarge, Broken}
}

// Error is what every exchange that fails returns.
type Error struct {
	Kind   Kind
	Host   string // with its port if the URL names one; empty if the URL cannot be read
	Status int    // of the answer, 0 without one
	Detail string // one plain sentence without its beginning, for an operator

	err error
}

// Error returns the host and what happened.
func (e *Error) Error() string {
	if e.Host == "" {
		return "fetch: " + e.Detail
	}
	return "fetch: " + e.Host + ": " + e.Detail
}

// Unwrap returns what caused it, nil if it was an answer.
func (e *Error) Unwrap() error { return e.err }

// Temporary reports whether the same exchange may succeed later without anybody changing what it asks for.
func (e *Error) Temporary() bool {
	switch e.Kind {
	case Forbidden, Redirect, TooLarge:
		return false
	case Status:
		return e.Status >= 500 || e.Status == 408 || e.Status == 429
	}
	return true
}

func classify(ctx context.Context, host string, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		own.Host = host
		return own
	}
	e := &Error{Kind: Broken, Host: host, err: err}
	var (
		certificate *tls.CertificateVerificationError
		invalid     x509.CertificateInvalidError
		timeout     net.Error
	)
	switch {
	case errors.As(err, &certificate):
		e.Kind, e.Detail = Certificate, "its certificate does not hold: "+certificate.Err.Error()
	case errors.As(err, &invalid):
		e.Kind, e.Detail = Certificate, "its certificate does not hold: "+invalid.Error()
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Kind, e.Detail = Timeout, "did not answer in time"
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Detail = "given up"
		}
	default:
		e.Detail = "the exchange broke off: " + plain(err)
	}
	return e
}

// explain puts an error of DNS as a sentence.
func explain(err error) string {
	var d *dns.Error
	if errors.As(err, &d) {
		return d.Explain()
	}
	return plain(err)
}

// plain is the innermost text, without the addresses that the outer layers repeat, and bounded.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	for { // the URL in *url.Error may hold what is not for logs
		var u interface{ Unwrap() error }
		if !errors.As(err, &u) {
			break
		}
		next := u.Unwrap()
		if next == nil {
			break
		}
		err = next
	}
	text := err.Error()
	return text[:min(len(text), 200)]
}
