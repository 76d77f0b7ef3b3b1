package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
)

// Bounds on keys that others published.
const (
	MaxRecord         = 4 << 10 // octets of a key record
	MinVerifyRSABits  = 1024    // RFC 8301, 3.2
	MaxVerifyRSABits  = 8192    // larger ones cost more time than they are worth
	maxRecordsOfOneID = 4       // TXT records at one name; there should be one (RFC 6376, 3.6.2.2)
)

// Resolver looks names up. An answer that there is nothing is no error: it is an empty list. An error says that it could
// not be found out now.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Errors of keys.
var (
	ErrNoKey   = errors.New("dkim: there is no key record")
	ErrRecord  = errors.New("dkim: the key record cannot be read")
	ErrRevoked = errors.New("dkim: the key is revoked")
	ErrWeakKey = errors.New("dkim: the key's size is not acceptable")
	ErrLookup  = errors.New("dkim: the key could not be looked up now")
)

// KeyRecord is a key as its domain publishes it (RFC 6376, 3.6.1).
type KeyRecord struct {
	Key     crypto.PublicKey // an *rsa.PublicKey or an ed25519.PublicKey
	Testing bool             // t=y: the domain tests DKIM
	Strict  bool             // t=s: i= must be at d=, not below
}

// ParseRecord reads a key record. The error is ErrRecord, ErrRevoked or ErrWeakKey, wrapped with what is wrong.
func ParseRecord(txt string) (*KeyRecord, error) {
	if len(txt) > MaxRecord {
		return nil, fmt.Errorf("%w: it has more than %d octets", ErrRecord, MaxRecord)
	}
	tags, err := tagsig.ParseTags([]byte(txt))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if v, ok := tags.Get("v"); ok && (string(v.Value) != "DKIM1" || tags[0].Name != "v") {
		return nil, fmt.Errorf("%w: v= is not DKIM1, or not first", ErrRecord)
	}
	if _, ok := tags.Get("h"); ok && !tags.Has("h", "sha256") {
		return nil, fmt.Errorf("%w: h= does not have sha256", ErrRecord)
	}
	if _, ok := tags.Get("s"); ok && !tags.Has("s", "email") && !tags.Has("s", "*") {
		return nil, fmt.Errorf("%w: s= does not have email", ErrRecord)
	}
	packed, ok := tags.Packed("p")
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: it has no p=", ErrRecord)
	case len(packed) == 0:
		return nil, ErrRevoked
	}
	der, err := base64.StdEncoding.AppendDecode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("%w: p= is not base64", ErrRecord)
	}
	r := &KeyRecord{Testing: tags.Has("t", "y"), Strict: tags.Has("t", "s")}
	switch tags.Text("k") {
	case "", "rsa":
		r.Key, err = parseRSA(der)
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: p= has %d octets, an Ed25519 key has %d", ErrRecord, len(der), ed25519.PublicKeySize)
		}
		r.Key = ed25519.PublicKey(der)
	default:
		return nil, fmt.Errorf("%w: k= is neither rsa nor ed25519", ErrRecord)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// parseRSA reads a key in either of the two forms that are published: RFC 6376, 3.6.1, says one and has examples of the other.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		key, _ = pub.(*rsa.PublicKey)
	} else if pub, err := x509.ParsePKCS1PublicKey(der); err == nil {
		key = pub
	}
	if key == nil {
		return nil, fmt.Errorf("%w: p= is no RSA key", ErrRecord)
	}
	if n := key.N.BitLen(); n < MinVerifyRSABits || n > MaxVerifyRSABits {
		return nil, fmt.Errorf("%w: %d bits, want %d to %d", ErrWeakKey, n, MinVerifyRSABits, MaxVerifyRSABits)
	}
	return key, nil
}

// LookupKey asks for the key of a selector. The error is ErrLookup, ErrNoKey or one of ParseRecord.
func LookupKey(ctx context.Context, r Resolver, domain, selector string) (*KeyRecord, error) {
	list, err := r.TXT(ctx, selector+"._domainkey."+domain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLookup, err)
	}
	err = ErrNoKey
	for i, txt := range list {
		if i == maxRecordsOfOneID {
			break
		}
		k, bad := ParseRecord(txt)
		if bad == nil {
			return k, nil
		}
		if errors.Is(err, ErrNoKey) {
			err = bad
		}
	}
	return nil, err
}

// Verify reports whether sig is the key's signature of a SHA-256 hash; algorithm is that of the a= tag.
func (k *KeyRecord) Verify(algorithm string, hash, sig []byte) error {
	switch pub := k.Key.(type) {
	case *rsa.PublicKey:
		if algorithm != "rsa-sha256" {
			return fmt.Errorf("%w: it is an RSA key, a= is %s", ErrRecord, algorithm)
		}
		if rsa.VerifyPKCS1v15(pub, crypto.SHA256, hash, sig) != nil {
			return ErrSignature
		}
	case ed25519.PublicKey:
		if algorithm != "ed25519-sha256" {
			return fmt.Errorf("%w: it is an Ed25519 key, a= is %s", ErrRecord, algorithm)
		}
		if !ed25519.Verify(pub, hash, sig) { // the hash is the message (RFC 8463, 3)
			return ErrSignature
		}
	default:
		return fmt.Errorf("%w: it has no key", ErrRecord)
	}
	return nil
}

// IsKeyName reports whether there can be a key for a domain and a selector.
func IsKeyName(domain, selector string) bool {
	return isDomain(domain) && (isDomain(selector) || isLabel(selector))
}
