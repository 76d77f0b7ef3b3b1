package auth

import (
	"context"
	"errors"

	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Verifier tells whose an access token is.
type Verifier interface {
	// Verify returns the value of the claim that names the credential. The error is ErrToken for a token that is not
	// good; any other means that it could not be told.
	Verify(ctx context.Context, token string) (subject string, err error)
}

// Issuer is one who gives access tokens.
type Issuer struct {
	Name     string
	Verifier Verifier
}

// ErrToken says that a token is not good: of another issuer, for another audience, expired, forged, or no token.
var ErrToken = errors.New("the token is not good")

type issuers struct{ list []Issuer }

func (s *issuers) any() bool { return s != nil && len(s.list) > 0 }

func (s *issuers) named(name string) bool {
	if s == nil {
		return false
	}
	for _, i := range s.list {
		if i.Name == name {
			return true
		}
	}
	return false
}

// SetIssuers replaces the issuers of tokens. Sessions that are open are not touched.
func (d *Directory) SetIssuers(list []Issuer) error {
	seen := make(map[string]bool, len(list))
	for _, i := range list {
		if i.Name == "" || i.Verifier == nil || seen[i.Name] {
			return invalid("auth.oauth", "each issuer needs a name of its own")
		}
		seen[i.Name] = true
	}
	d.issuers.Store(&issuers{list})
	return nil
}

// token finds the credential of an access token; it is the question of OAUTHBEARER and XOAUTH2. Tokens are checked by
// signature, which costs little, so no budget but that of the address stands before it.
func (a *attempt) token(ctx context.Context, user, token string) error {
	unreachable := false
	for _, i := range a.d.issuers.Load().list {
		subject, err := i.Verifier.Verify(ctx, token)
		switch {
		case errors.Is(err, ErrToken):
			continue
		case err != nil:
			a.d.o.Logger.WarnContext(ctx, "access token not checked", "issuer", i.Name, "error", err)
			unreachable = true
			continue
		}
		e := a.d.state.subject(i.Name, subject)
		if e == nil {
			a.outcome = outcomeUnknown
			return sasl.ErrFailed
		}
		record := e.current.Load()
		if record == nil || user != "" && loginForm(user) != record.Login && user != subject {
			a.outcome = outcomeUnknown
			return sasl.ErrFailed
		}
		a.entry, a.login = e, record.Login
		if err := a.budget(); err != nil {
			return err
		}
		return a.admit(record, "")
	}
	if unreachable {
		a.outcome = outcomeIssuer
		return sasl.ErrTemporary
	}
	a.outcome = outcomeWrong
	return sasl.ErrFailed
}
