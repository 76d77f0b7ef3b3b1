package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MinRSABits is the smallest RSA key that signs (RFC 8301, 3.2, asks signers for 1024 at least and better 2048).
const MinRSABits = 2048

// MaxKeys is how many signatures one message gets at most.
const MaxKeys = 8

// Errors of signing. They are about the message, not about keys.
var (
	// ErrNoFrom: there is no From field, or several, which no receiver takes for authentic (RFC 6376, 5.4).
	ErrNoFrom = errors.New("dkim: the message has not exactly one From field")
	// ErrHeader: a line of the header is no field; programs disagree on what such a header says.
	ErrHeader = errors.New("dkim: the header has a line that is no field")
	// ErrLineEnd: a CR or LF stands alone, which a relay may repair and so break the signature.
	ErrLineEnd = errors.New("dkim: the message has a bare CR or LF")
)

// Options say what is signed. The zero value is right for almost everybody.
type Options struct {
	// Headers are the fields that are signed where they occur, as often as they do; nil means DefaultHeaders.
	Headers []string
	// Oversign are the fields that are listed once more than they occur; nil means DefaultOversign. From is always one
	// of them.
	Oversign []string
}

// DefaultHeaders are the fields that tell a reader what a message is, from whom and about what (RFC 6376, 5.4.1).
// Fields that relays add or change, Received and Return-Path above all, are not among them.
func DefaultHeaders() []string {
	return append(DefaultOversign(), "Sender", "Resent-Date", "Resent-From", "Resent-To", "Resent-Cc", "Resent-Message-ID",
		"Auto-Submitted", "Feedback-ID", "Content-ID", "Content-Description", "TLS-Required", "TLS-Report-Domain", "TLS-Report-Submitter")
}

// DefaultOversign are the fields of DefaultHeaders of which nobody may add one after the signature.
func DefaultOversign() []string {
	return []string{"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "In-Reply-To", "References",
		"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "List-Id", "List-Help", "List-Unsubscribe",
		"List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive"}
}

// KeyOptions describe a key.
type KeyOptions struct {
	Domain   string        // d=, in A-labels
	Selector string        // s=
	Signer   crypto.Signer // of an *rsa.PublicKey of MinRSABits or more, or an ed25519.PublicKey; used concurrently
	// Expire is how long a signature is good for (x=), an hour at least; zero: for ever. It must outlast the time that
	// delivery is tried.
	Expire time.Duration
	// Identity is i=, an address or "@domain" at or below Domain; empty: none.
	Identity string
}

// Key signs for a domain. It is safe for concurrent use.
type Key struct {
	KeyOptions
	algorithm string            // a=
	hash      crypto.SignerOpts // what Signer is told
}

// NewKey checks the options and returns a key. The error says which of them is wrong.
func NewKey(o KeyOptions) (*Key, error) {
	switch {
	case !isDomain(o.Domain):
		return nil, fmt.Errorf("dkim: %q is no domain", o.Domain)
	case !isDomain(o.Selector) && !isLabel(o.Selector):
		return nil, fmt.Errorf("dkim: %q is no selector", o.Selector)
	case o.Expire < 0 || o.Expire > 0 && o.Expire < time.Hour:
		return nil, fmt.Errorf("dkim: a signature that expires after %v does not outlast a retry", o.Expire)
	case o.Identity != "" && !o.identityFits():
		return nil, fmt.Errorf("dkim: identity %q is not at or below %s (RFC 6376, 3.5)", o.Identity, o.Domain)
	case o.Signer == nil:
		return nil, errors.New("dkim: a key without a signer")
	}
	switch pub := o.Signer.Public().(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < MinRSABits {
			return nil, fmt.Errorf("dkim: an RSA key of %d bits, need %d (RFC 8301, 3.2)", n, MinRSABits)
		}
		return &Key{KeyOptions: o, algorithm: "rsa-sha256", hash: crypto.SHA256}, nil
	case ed25519.PublicKey:
		// It signs the hash as its message (RFC 8463, 3).
		return &Key{KeyOptions: o, algorithm: "ed25519-sha256", hash: crypto.Hash(0)}, nil
	default:
		return nil, fmt.Errorf("dkim: keys of type %T cannot sign, use RSA or Ed25519", pub)
	}
}

// identityFits reports whether i= is at d= or at a true subdomain: "@fexample.net" is not below "example.net".
func (k *KeyOptions) identityFits() bool {
	at := strings.LastIndexByte(k.Identity, '@')
	if at < 0 {
		return false
	}
	for _, c := range []byte(k.Identity[:at]) {
		// What would need quoting (RFC 6376, 2.11) is no use in an identity.
		if c <= ' ' || c >= 0x7f || c == ';' || c == '=' || c == '"' {
			return false
		}
	}
	return atOrBelow(k.Identity[at+1:], k.Domain)
}

func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if !isLabel(l) {
			return false
		}
	}
	return true
}

func isLabel(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case c == '-' && 0 < i && i < len(s)-1:
		default:
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 63
}

// Algorithm returns what a= says of the key's signatures: "rsa-sha256" or "ed25519-sha256".
func (k *Key) Algorithm() string { return k.algorithm }

// SignHash signs a SHA-256 hash, for fields that are signed as those of DKIM are.
func (k *Key) SignHash(hash []byte) ([]byte, error) {
	sig, err := k.Signer.Sign(rand.Reader, hash, k.hash)
	if err != nil {
		return nil, fmt.Errorf("dkim: signing for %s with selector %s: %w", k.Domain, k.Selector, err)
	}
	return sig, nil
}
