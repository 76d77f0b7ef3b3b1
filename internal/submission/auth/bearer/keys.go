package bearer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys = 100  // of one issuer
	minRSA  = 2048 // bits (RFC 7518, 3.3)
	maxRSA  = 16384

	pauseAfterFailure = 10 * time.Second
)

// publicKey is one key of an issuer.
type publicKey struct {
	key        crypto.PublicKey
	kid        string   // empty: not said
	algorithms []string // it can be used with; never empty
}

// parseKey reads a key as published (RFC 7517, 4). It returns nil if the key is of a kind that is not known or not for
// signatures: others may be good. The library checks that points are on their curves; sizes and what a key is for are
// checked here.
func parseKey(p []byte) *publicKey {
	var k jose.JSONWebKey
	if k.UnmarshalJSON(p) != nil || k.Use != "" && k.Use != "sig" {
		return nil
	}
	r := &publicKey{key: k.Key, kid: k.KeyID}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSA || key.N.BitLen() > maxRSA || key.E < 3 || key.E > 1<<31-1 || key.E%2 == 0 {
			return nil
		}
		r.algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		// The curve decides (RFC 7518, 3.4), which the library does not look at.
		r.algorithms = map[int][]string{256: {"ES256"}, 384: {"ES384"}, 521: {"ES512"}}[key.Params().BitSize]
	case ed25519.PublicKey:
		var raw struct{ X string }
		if json.Unmarshal(p, &raw) != nil || strings.TrimRight(raw.X, "=") != base64.RawURLEncoding.EncodeToString(key) {
			return nil // the library fills up what is too short and cuts what is too long
		}
		r.algorithms = []string{"EdDSA"}
	}
	if k.Algorithm != "" {
		r.algorithms = slices.DeleteFunc(r.algorithms, func(a string) bool { return a != k.Algorithm })
	}
	if len(r.algorithms) == 0 { // a shared secret, a private key, or not for signatures
		return nil
	}
	return r
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
		Keys []json.RawMessage `json:"keys"`
	}
	if err := v.fetch(req, &set); err != nil {
		return nil, err
	}
	var list []*publicKey
	for _, p := range set.Keys[:min(len(set.Keys), maxKeys)] {
		if k := parseKey(p); k != nil {
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
