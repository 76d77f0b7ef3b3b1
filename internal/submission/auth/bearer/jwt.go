package bearer

import (
	"context"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// algorithms are those of which one can be allowed (RFC 7518, 3.1; RFC 8037, 3.1). None has a shared secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

func algorithmNames() (names []string) {
	for _, a := range algorithms() {
		names = append(names, string(a))
	}
	return names
}

// jws is a signed token taken apart (RFC 7515, 3.1); nothing of it is believed yet.
type jws struct {
	*jose.JSONWebSignature
	alg, kid string
}

func (v *Verifier) parseJWS(token string) (*jws, error) {
	// The library's decoder of base64 passes over line ends. Its errors may hold parts of the token.
	if strings.ContainsAny(token, "\r\n") {
		return nil, bad("it is no signed JWT")
	}
	s, err := jose.ParseSignedCompact(token, v.algorithms)
	if err != nil || len(s.Signatures) != 1 {
		return nil, bad("it is no JWT that is signed by an algorithm that is allowed")
	}
	h := s.Signatures[0].Protected
	if _, there := h.ExtraHeaders["crit"]; there {
		return nil, bad("it has critical extensions") // RFC 7515, 4.1.11: there is none that we know
	}
	if typ, there := h.ExtraHeaders[jose.HeaderType]; there {
		name, _ := typ.(string)
		name = strings.TrimPrefix(strings.ToLower(name), "application/")
		if name != "jwt" && name != "at+jwt" {
			return nil, bad("it is of another type")
		}
	}
	return &jws{JSONWebSignature: s, alg: h.Algorithm, kid: h.KeyID}, nil
}

// verifyJWT checks the signature first and then what the token says.
func (v *Verifier) verifyJWT(ctx context.Context, token string) (string, error) {
	t, err := v.parseJWS(token)
	if err != nil {
		return "", err
	}
	payload, err := v.signed(ctx, t)
	if err != nil {
		return "", err
	}
	c, err := parseClaims(payload)
	switch {
	case err != nil:
		return "", bad("what it says cannot be read")
	case c.registered.Expiry == nil:
		return "", bad("it does not say when it ends")
	}
	if err := c.check(jwt.Expected{Issuer: v.o.Issuer, AnyAudience: jwt.Audience{v.o.Audience}}, v.o.Skew); err != nil {
		return "", err
	}
	return v.subject(c)
}

// signed looks for the issuer's key that the token is signed with, and returns what is signed.
func (v *Verifier) signed(ctx context.Context, t *jws) ([]byte, error) {
	fits := func(k *publicKey) bool {
		return (t.kid == "" || k.kid == "" || k.kid == t.kid) && slices.Contains(k.algorithms, t.alg)
	}
	keys, err := v.publicKeys(ctx, fits)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if !fits(k) {
			continue
		}
		if payload, err := t.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, bad("it is not signed by a key of its issuer")
}
