package smtpserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// maxAuthLine is the octets of a line of AUTH, with its CRLF, which may be longer than a command (RFC 4954, 4).
const maxAuthLine = 12288 + 2

// Results of an exchange, for metrics.
const (
	authSucceeded = iota
	authFailed
	authMalformed
	authTemporary
	authRefused
	authResults
)

var authWords = [authResults]string{"ok", "failed", "malformed", "temporary", "refused"}

var errCancelled = fmt.Errorf("%w: cancelled by the client", sasl.ErrMalformed)

// mayBeLong reports whether the line that begins with data may have the length of a line of AUTH.
func (s *session) mayBeLong(data []byte) bool {
	return s.exchanging || s.offersAuth && len(data) >= 5 && bytes.EqualFold(data[:5], []byte("AUTH "))
}

// shown is a command line as transcripts show it. What is no command may be a password: a client whose AUTH was refused may go on
// with it all the same.
func shown(verb smtp.Verb, line []byte) string {
	switch verb {
	case smtp.VerbAuth:
	case smtp.VerbUnknown:
		return fmt.Sprintf("*** (%d octets that are no command)", len(line))
	default:
		return string(line)
	}
	word, rest, _ := bytes.Cut(line, []byte{' '})
	mechanism, rest, _ := bytes.Cut(rest, []byte{' '})
	if bytes.ContainsAny(mechanism, "\t=+/") { // no mechanism (RFC 4422, 3.1)
		mechanism, rest = nil, line
	}
	out := string(word) + " " + string(mechanism)
	if len(rest) > 0 {
		out += " ***"
	}
	return out
}

// mechanisms is what the backend offers now.
func (s *session) mechanisms() []string {
	if a, ok := s.backend.(Authenticator); ok && !s.authenticated {
		return a.Mechanisms()
	}
	return nil
}

// sendHello answers EHLO with what is offered now.
func (s *session) sendHello() ending {
	mechanisms := s.mechanisms()
	s.offersAuth = len(mechanisms) > 0
	startTLS := s.offersTLS()
	if !startTLS && !s.offersAuth && !s.trusted && s.peer.TLS == nil {
		return s.send(250, s.terms.hello)
	}
	words := s.terms.words
	if startTLS {
		words += "\nSTARTTLS"
	}
	if s.peer.TLS != nil {
		words += "\nREQUIRETLS" // RFC 8689, 2
	}
	if s.offersAuth {
		words += "\nAUTH " + strings.Join(mechanisms, " ")
	}
	if s.trusted {
		words += "\n" + xclientOffer + "\n" + xforwardOffer
	}
	return s.reply(smtp.Reply{Code: 250, Text: words})
}

// auth begins a login (RFC 4954, 4).
func (s *session) auth(ctx context.Context, args []byte) ending {
	a, ok := s.backend.(Authenticator)
	if !ok {
		return s.refuse(replyNotOffered)
	}
	var offered []string
	if !s.authenticated {
		offered = a.Mechanisms()
		if len(offered) == 0 && !s.offersTLS() {
			return s.refuse(replyNotOffered)
		}
	}
	word, initial, hasInitial := bytes.Cut(args, []byte{' '})
	name := strings.ToUpper(string(word))
	switch {
	case s.state == stateConnected:
		return s.refuse(replyHelloFirst)
	case s.authenticated:
		return s.refuse(replyAuthTwice)
	case s.state != stateReady:
		return s.refuse(replySequence)
	case !mechanismName(name), bytes.IndexByte(initial, ' ') >= 0:
		return s.refuse(replyAuthSyntax)
	case !slices.Contains(offered, name):
		if s.offersTLS() {
			return s.failAuth(authRefused, replyTLSFirst)
		}
		return s.failAuth(authRefused, replyAuthUnknown)
	}
	server, refusal := a.Auth(ctx, name)
	if !refusal.IsZero() || server == nil {
		if server == nil && refusal.IsZero() || refusal.Class() < 4 {
			refusal = replyLocalError
		}
		return s.failAuth(authRefused, refusal)
	}
	e, err := s.exchange(ctx, server, initial, hasInitial)
	r := a.AuthDone(ctx, name, err)
	if e != goOn {
		return e
	}
	return s.finishAuth(r, err)
}

// mechanismName reports a name of 1 to 20 characters of the set that RFC 4422, 3.1, allows.
func mechanismName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 20
}

// exchange passes challenges and responses on. e is not goOn if the session has ended meanwhile.
func (s *session) exchange(ctx context.Context, server sasl.Server, initial []byte, hasInitial bool) (e ending, err error) {
	var response []byte // nil only if there is no initial response
	if hasInitial {
		if response, err = decodeInitial(initial); err != nil {
			return goOn, err
		}
	}
	for {
		challenge, done, err := server.Next(ctx, response)
		if err != nil || done {
			return goOn, err
		}
		line, e := s.ask(ctx, challenge)
		switch {
		case e != goOn:
			return e, fmt.Errorf("session ended: %s", farewells[e].word)
		case line == nil:
			return goOn, errTooLong
		case string(line) == "*":
			return goOn, errCancelled
		}
		if response, err = decodeResponse(line); err != nil {
			return goOn, err
		}
	}
}

// errTooLong is a response that was too long; the client has been told.
var errTooLong = fmt.Errorf("%w: line too long", sasl.ErrMalformed)

// ask sends a challenge and reads the line that answers it, nil if that was too long.
func (s *session) ask(ctx context.Context, challenge []byte) ([]byte, ending) {
	s.server.metrics.reply(s.verb, 334)
	s.out = append(s.out, "334 "...)
	s.out = base64.StdEncoding.AppendEncode(s.out, challenge)
	s.out = append(s.out, '\r', '\n')
	if s.transcript {
		s.log.Log(ctx, LevelTranscript, "server says", "reply", "334 ***")
	}
	s.exchanging = true
	line, e := s.readLine()
	s.exchanging = false
	if s.transcript && e == goOn {
		s.log.Log(ctx, LevelTranscript, "client says", "line", "***")
	}
	return line, e
}

// decodeInitial decodes an initial response, of which "=" is the empty one (RFC 4954, 4).
func decodeInitial(p []byte) ([]byte, error) {
	switch string(p) {
	case "=":
		return []byte{}, nil
	case "*":
		return nil, errCancelled
	case "":
		return nil, fmt.Errorf("%w: initial response is missing", sasl.ErrMalformed)
	}
	return decodeResponse(p)
}

// decodeResponse decodes base64 in the one way that it can be written.
func decodeResponse(p []byte) ([]byte, error) {
	if bytes.ContainsAny(p, "\r\n") { // which the decoder would skip
		return nil, fmt.Errorf("%w: not base64", sasl.ErrMalformed)
	}
	out := make([]byte, 0, base64.StdEncoding.DecodedLen(len(p)))
	out, err := base64.StdEncoding.Strict().AppendDecode(out, p)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64", sasl.ErrMalformed)
	}
	return out, nil
}

// finishAuth answers an exchange that has ended. r is the backend's reply.
func (s *session) finishAuth(r smtp.Reply, err error) ending {
	result, def := authFailed, replyAuthFailed
	switch {
	case err == nil:
		result, def = authSucceeded, replyAuthDone
	case errors.Is(err, errTooLong):
		return s.countFailure(authMalformed)
	case errors.Is(err, errCancelled):
		result, def = authMalformed, replyAuthCancelled
	case errors.Is(err, sasl.ErrMalformed):
		result, def = authMalformed, replyAuthMalformed
	case errors.Is(err, sasl.ErrFailed):
	default:
		result, def = authTemporary, replyAuthTemporary
	}
	if err != nil && s.debug {
		s.log.Debug("login failed", "error", err.Error())
	}
	if err != nil && r.Positive() {
		s.log.Error("backend gave a positive reply to a login that failed", "reply", r.String())
		r = smtp.Reply{}
	}
	if r.IsZero() {
		r = def
	}
	if result != authSucceeded || !r.Positive() {
		return s.failAuth(max(result, authFailed), r)
	}
	s.server.metrics.auths[authSucceeded].Inc()
	s.authenticated = true
	s.offersAuth = false
	_, e := s.answer(r, replyAuthDone)
	return e
}

// failAuth answers a login that did not succeed. A session gets so many and no more.
func (s *session) failAuth(result int, r smtp.Reply) ending {
	if _, e := s.answer(r, replyAuthFailed); e != goOn {
		return e
	}
	return s.countFailure(result)
}

func (s *session) countFailure(result int) ending {
	s.server.metrics.auths[result].Inc()
	if s.authFailures++; s.authFailures >= s.terms.AuthFailures {
		return endAuthFailures
	}
	return goOn
}
