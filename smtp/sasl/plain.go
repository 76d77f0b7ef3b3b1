package sasl

import (
	"bytes"
	"context"
)

// PasswordFunc checks a password. authzid is the identity to act as, empty if it is that of authcid. It returns nil, or an
// error that wraps ErrFailed or ErrTemporary.
type PasswordFunc func(ctx context.Context, authzid, authcid, password string) error

// Plain is PLAIN (RFC 4616): identity, name and password in one response.
func Plain(verify func(ctx context.Context, authzid, authcid, password string) error) Server {
	return &plain{verify: verify}
}

type plain struct {
	verify      PasswordFunc
	begun, over bool
}

func (p *plain) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	if p.over {
		return nil, false, over()
	}
	if begin(response, &p.begun) {
		return nil, false, nil
	}
	p.over = true
	if len(response) > 2*maxName+2+longest {
		return nil, false, malformed("response too long")
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, false, malformed("not three parts separated by NUL")
	}
	return verdict(checkPassword(ctx, p.verify, parts[0], parts[1], parts[2]))
}

// verdict ends an exchange.
func verdict(err error) ([]byte, bool, error) { return nil, err == nil, err }

// checkPassword prepares what the client sent and asks.
func checkPassword(ctx context.Context, verify PasswordFunc, authzid, authcid, password []byte) error {
	if len(authcid) == 0 {
		return malformed("no name")
	}
	zid, err := prepareName(string(authzid))
	if err != nil {
		return err
	}
	cid, err := prepareName(string(authcid))
	if err != nil {
		return err
	}
	pass, err := Prepare(string(password))
	if err != nil {
		return err
	}
	return verify(ctx, zid, cid, pass)
}

// Login is LOGIN, which no RFC describes and old clients know alone: it asks for name and password one after the other.
// The name may come as initial response. authzid is always empty.
func Login(verify func(ctx context.Context, authzid, authcid, password string) error) Server {
	return &login{verify: verify}
}

type login struct {
	verify      PasswordFunc
	begun, over bool
	named       bool
	name        []byte
}

// What LOGIN asks. Clients compare these words.
const (
	askName     = "Username:"
	askPassword = "Password:"
)

func (l *login) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	switch {
	case l.over:
		return nil, false, over()
	case begin(response, &l.begun):
		return []byte(askName), false, nil
	case !l.named:
		if len(response) == 0 || len(response) > maxName {
			l.over = true
			return nil, false, malformed("name is empty or too long")
		}
		l.named, l.name = true, bytes.Clone(response)
		return []byte(askPassword), false, nil
	}
	l.over = true
	return verdict(checkPassword(ctx, l.verify, nil, l.name, response))
}

// External is EXTERNAL (RFC 4422, A): the client is who something outside, such as its certificate, says. authzid is the
// identity that it wants to act as, empty if it leaves that to the server.
func External(verify func(ctx context.Context, authzid string) error) Server {
	return &external{verify: verify}
}

type external struct {
	verify      func(ctx context.Context, authzid string) error
	begun, over bool
}

func (e *external) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	if e.over {
		return nil, false, over()
	}
	if begin(response, &e.begun) {
		return nil, false, nil
	}
	e.over = true
	authzid, err := prepareName(string(response))
	if err != nil {
		return nil, false, err
	}
	return verdict(e.verify(ctx, authzid))
}
