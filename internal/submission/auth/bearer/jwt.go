package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
)

// algorithm is how a signature is made (RFC 7518, 3; RFC 8037, 3.1).
type algorithm struct {
	hash crypto.Hash // 0: the algorithm has its own
	pss  bool
	size int // octets of each half of an ECDSA signature; it tells the curve
}

// algorithmOf returns the algorithm of a name. There is none with a shared secret, and "none" is none.
func algorithmOf(name string) (algorithm, bool) {
	switch name {
	case "RS256":
		return algorithm{hash: crypto.SHA256}, true
	case "RS384":
		return algorithm{hash: crypto.SHA384}, true
	case "RS512":
		return algorithm{hash: crypto.SHA512}, true
	case "PS256":
		return algorithm{hash: crypto.SHA256, pss: true}, true
	case "PS384":
		return algorithm{hash: crypto.SHA384, pss: true}, true
	case "PS512":
		return algorithm{hash: crypto.SHA512, pss: true}, true
	case "ES256":
		return algorithm{hash: crypto.SHA256, size: 32}, true
	case "ES384":
		return algorithm{hash: crypto.SHA384, size: 48}, true
	case "ES512":
		return algorithm{hash: crypto.SHA512, size: 66}, true
	case "EdDSA":
		return algorithm{}, true
	}
	return algorithm{}, false
}

func algorithmNames() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

var jwtBase64 = base64.RawURLEncoding.Strict()

// jws is a signed token taken apart (RFC 7515, 3.1); nothing of it is believed yet.
type jws struct {
	alg, kid  string
	signed    string // what the signature is over
	payload   []byte
	signature []byte
}

func parseJWS(token string) (*jws, error) {
	head, rest, ok := strings.Cut(token, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	// The decoder of base64 passes over line ends.
	if !ok || !ok2 || strings.Contains(sig, ".") || strings.ContainsAny(token, "\r\n") {
		return nil, bad("it is no signed JWT")
	}
	t := &jws{signed: token[:len(head)+1+len(body)]}
	header, err := jwtBase64.DecodeString(head)
	if err == nil {
		t.payload, err = jwtBase64.DecodeString(body)
	}
	if err == nil {
		t.signature, err = jwtBase64.DecodeString(sig)
	}
	var h claims
	if err != nil || json.Unmarshal(header, &h) != nil {
		return nil, bad("it is not well encoded")
	}
	t.alg, t.kid = h.text("alg"), h.text("kid")
	if _, there := h["crit"]; there {
		return nil, bad("it has critical extensions") // RFC 7515, 4.1.11: there is none that we know
	}
	typ := strings.TrimPrefix(strings.ToLower(h.text("typ")), "application/")
	if typ != "" && typ != "jwt" && typ != "at+jwt" {
		return nil, bad("it is of another type")
	}
	return t, nil
}

// verifyJWT checks the signature first and then what the token says.
func (v *Verifier) verifyJWT(ctx context.Context, token string) (string, error) {
	t, err := parseJWS(token)
	if err != nil {
		return "", err
	}
	alg, ok := algorithmOf(t.alg)
	if !ok || !slices.Contains(v.o.Algorithms, t.alg) {
		return "", bad("its algorithm is not allowed")
	}
	if err := v.signed(ctx, t, alg); err != nil {
		return "", err
	}
	var c claims
	if json.Unmarshal(t.payload, &c) != nil {
		return "", bad("it says nothing")
	}
	switch {
	case c.text("iss") != v.o.Issuer:
		return "", bad("it is of another issuer")
	case !v.forUs(c):
		return "", bad("it is for another audience")
	}
	if err := c.checkTimes(v.o.Skew, true); err != nil {
		return "", err
	}
	return v.subject(c)
}

// signed looks for the issuer's key that the token is signed with.
func (v *Verifier) signed(ctx context.Context, t *jws, alg algorithm) error {
	keys, err := v.publicKeys(ctx, func(k *publicKey) bool { return k.mayBe(t) })
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.mayBe(t) && alg.verify(k.key, t) {
			return nil
		}
	}
	return bad("it is not signed by a key of its issuer")
}

// verify reports whether the signature is one of the key by this algorithm. A key of another kind never fits.
func (a algorithm) verify(key crypto.PublicKey, t *jws) bool {
	var digest []byte
	if a.hash != 0 {
		h := a.hash.New()
		h.Write([]byte(t.signed)) // a hash takes all it is given
		digest = h.Sum(nil)
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch {
		case a.hash == 0 || a.size != 0:
			return false
		case a.pss:
			return rsa.VerifyPSS(key, a.hash, digest, t.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, a.hash, digest, t.signature) == nil
	case *ecdsa.PublicKey:
		if a.size == 0 || (key.Curve.Params().BitSize+7)/8 != a.size || len(t.signature) != 2*a.size {
			return false
		}
		r, s := new(big.Int).SetBytes(t.signature[:a.size]), new(big.Int).SetBytes(t.signature[a.size:])
		return ecdsa.Verify(key, digest, r, s)
	case ed25519.PublicKey:
		return a == (algorithm{}) && ed25519.Verify(key, []byte(t.signed), t.signature)
	}
	return false
}
