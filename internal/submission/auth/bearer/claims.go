package bearer

import (
	"errors"
	"time"

	josejson "github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
)

// claims are what a token says.
type claims struct {
	registered jwt.Claims
	all        map[string]any
}

// parseClaims reads them. Other than encoding/json, this decoder compares names as they are and takes none twice.
func parseClaims(p []byte) (*claims, error) {
	c := new(claims)
	return c, errors.Join(josejson.Unmarshal(p, &c.all), josejson.Unmarshal(p, &c.registered))
}

// check holds issuer, audience and times against what is wanted (RFC 7519, 4.1). What want leaves empty is not asked for.
func (c *claims) check(want jwt.Expected, skew time.Duration) error {
	r := &c.registered
	for _, t := range []*jwt.NumericDate{r.Expiry, r.NotBefore, r.IssuedAt} {
		if t != nil && (*t < 0 || *t > 1<<40) { // of a number too large the library makes any
			return bad("a time in it is none")
		}
	}
	err := r.ValidateWithLeeway(want, skew)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return bad("it is of another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return bad("it is for another audience")
	case errors.Is(err, jwt.ErrExpired):
		return bad("it has expired")
	}
	return bad("it is not valid yet")
}

// subject returns what names the credential.
func (v *Verifier) subject(c *claims) (string, error) {
	s, _ := c.all[v.o.Claim].(string)
	if s == "" || len(s) > 255 {
		return "", bad("it has no claim %s", v.o.Claim)
	}
	if told, there := c.all["email_verified"]; there && v.o.Claim == "email" && told != true && told != "true" {
		return "", bad("its e-mail address is not verified")
	}
	return s, nil
}
