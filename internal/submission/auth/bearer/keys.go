package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxKeys = 100  // of one issuer
	minRSA  = 2048 // bits (RFC 7518, 3.3)

	pauseAfterFailure = 10 * time.Second
)

// publicKey is one key of an issuer.
type publicKey struct {
	key      crypto.PublicKey
	kid, alg string // empty: not said
}

// mayBe reports whether a token may be signed with the key, going by what both say.
func (k *publicKey) mayBe(t *jws) bool {
	return (t.kid == "" || k.kid == "" || k.kid == t.kid) && (k.alg == "" || k.alg == t.alg)
}

// jwk is a key as published (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2).
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use"`
	Kid string `json:"kid"`
	Alg string `json:"alg"`
	Crv string `json:"crv"`
	N   string `json:"n"`
	E   string `json:"e"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// publicKey returns the key, nil if it is of a kind that is not known or not for signatures: others may be good.
func (j *jwk) publicKey() *publicKey {
	if j.Use != "" && j.Use != "sig" {
		return nil
	}
	key := j.material()
	if key == nil {
		return nil
	}
	return &publicKey{key: key, kid: j.Kid, alg: j.Alg}
}

func (j *jwk) material() crypto.PublicKey {
	octets := func(s string) []byte {
		p, err := jwtBase64.DecodeString(strings.TrimRight(s, "="))
		if err != nil || len(p) > 2048 {
			return nil
		}
		return p
	}
	switch j.Kty {
	case "RSA":
		n, e := new(big.Int).SetBytes(octets(j.N)), new(big.Int).SetBytes(octets(j.E))
		if n.BitLen() < minRSA || n.BitLen() > 16384 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
			return nil
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[j.Crv]
		if curve == nil {
			return nil
		}
		size := (curve.Params().BitSize + 7) / 8
		x, y := octets(j.X), octets(j.Y)
		if len(x) != size || len(y) != size {
			return nil
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
		if err != nil { // not a point of the curve
			return nil
		}
		return key
	case "OKP":
		if x := octets(j.X); j.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize {
			return ed25519.PublicKey(x)
		}
	}
	return nil
}

// keySet is what is known of the issuer's keys.
type keySet struct {
	turn chan struct{} // one slot: who asks the issuer

	mu    sync.Mutex
	list  []*publicKey
	read  time.Time // when the issuer has said so
	asked time.Time // when it was asked last, in vain or not
	err   error     // of that time
}

// publicKeys returns the keys; those known, if one of them fits, else what the issuer says now.
func (v *Verifier) publicKeys(ctx context.Context, fits func(*publicKey) bool) ([]*publicKey, error) {
	if list, ok, err := v.keys.known(&v.o, fits); ok || err != nil {
		return list, err
	}
	select {
	case v.keys.turn <- struct{}{}:
		defer func() { <-v.keys.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the issuer's keys: %w", context.Cause(ctx))
	}
	if list, ok, err := v.keys.known(&v.o, fits); ok || err != nil { // somebody has asked meanwhile
		return list, err
	}
	list, err := v.fetchKeys(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // the client has gone; that says nothing of the issuer
	}
	k := &v.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked, k.err = time.Now(), err
	if err == nil {
		k.list, k.read = list, k.asked
	}
	if len(k.list) > 0 && time.Since(k.read) < v.o.KeepStale {
		return k.list, nil
	}
	return nil, errors.Join(err, k.errNone())
}

func (k *keySet) errNone() error {
	if k.err == nil {
		return errors.New("the issuer has no key that can be used")
	}
	return nil
}

// known returns the keys if the issuer need not, or must not yet, be asked.
func (k *keySet) known(o *Options, fits func(*publicKey) bool) (list []*publicKey, ok bool, err error) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	usable := len(k.list) > 0 && now.Sub(k.read) < o.KeepStale
	pause := o.Pause
	if k.err != nil {
		pause = min(pause, pauseAfterFailure)
	}
	paused := !k.asked.IsZero() && now.Sub(k.asked) < pause
	if usable && (paused || now.Sub(k.read) < o.KeepKeys && anyFits(k.list, fits)) {
		return k.list, true, nil
	}
	if paused {
		return nil, false, errors.Join(k.err, k.errNone())
	}
	return nil, false, nil
}

func anyFits(list []*publicKey, fits func(*publicKey) bool) bool {
	for _, k := range list {
		if fits(k) {
			return true
		}
	}
	return false
}

func (v *Verifier) fetchKeys(ctx context.Context) ([]*publicKey, error) {
	at := v.o.Keys
	if at == "" {
		var err error
		if at, err = v.discover(ctx); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for keys: %w", err)
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := v.fetch(req, &set); err != nil {
		return nil, err
	}
	var list []*publicKey
	for i := range set.Keys[:min(len(set.Keys), maxKeys)] {
		if k := set.Keys[i].publicKey(); k != nil {
			list = append(list, k)
		}
	}
	return list, nil
}

// discover finds the URL of the keys (OpenID Connect Discovery 1.0, 4). The document must be the issuer's own.
func (v *Verifier) discover(ctx context.Context) (string, error) {
	at := strings.TrimSuffix(v.o.Issuer, "/") + "/.well-known/openid-configuration"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", fmt.Errorf("ask the issuer: %w", err)
	}
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := v.fetch(req, &doc); err != nil {
		return "", err
	}
	if doc.Issuer != v.o.Issuer {
		return "", fmt.Errorf("the document of %s is of another issuer", v.o.Issuer)
	}
	if _, err := safeURL(doc.Keys); err != nil {
		return "", fmt.Errorf("the document of %s: jwks_uri %w", v.o.Issuer, err)
	}
	return doc.Keys, nil
}
