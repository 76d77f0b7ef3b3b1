package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"io"
	"log/slog"
	"strings"
)

// Secret is a password or key in the clear. It exists between its making and its showing, and does not print itself.
type Secret struct{ text string }

// Reveal returns the text, for the one who is to have it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports that there is none, as with certificates.
func (s Secret) IsZero() bool { return s.text == "" }

// String does not return the secret.
func (s Secret) String() string { return "[secret]" }

// GoString does not return the secret.
func (s Secret) GoString() string { return "[secret]" }

// LogValue does not return the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText does not return the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// KeyPrefix begins each API key, so that people and scanners recognise one.
const KeyPrefix = "gw_"

const (
	idSize        = 10 // octets, 16 letters
	keySize       = 20 // octets, 32 letters: 160 bits
	generatedSize = 20 // octets of a generated password, 32 letters
)

var letters = base32.NewEncoding("abcdefghjkmnpqrstvwxyz0123456789").WithPadding(base32.NoPadding)

func random(r io.Reader, n int) ([]byte, error) {
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

func randomLetters(r io.Reader, octets int) (string, error) {
	p, err := random(r, octets)
	return letters.EncodeToString(p), err
}

// generatePassword makes a password of 160 bits in groups that people can read to each other.
func generatePassword(r io.Reader) (Secret, error) {
	s, err := randomLetters(r, generatedSize)
	if err != nil {
		return Secret{}, err
	}
	var groups []string
	for len(s) > 0 {
		groups, s = append(groups, s[:8]), s[8:]
	}
	return Secret{strings.Join(groups, "-")}, nil
}

// generateKey makes an API key that names its credential.
func generateKey(r io.Reader, credential string) (Secret, error) {
	s, err := randomLetters(r, keySize)
	return Secret{KeyPrefix + credential + "_" + s}, err
}

// keyCredential returns the id of the credential that a key names; empty if the text is no key.
func keyCredential(key string) string {
	rest, ok := strings.CutPrefix(key, KeyPrefix)
	if !ok {
		return ""
	}
	id, tail, ok := strings.Cut(rest, "_")
	if !ok || tail == "" || len(key) > 128 || !isID(id) {
		return ""
	}
	return id
}

func keyDigest(key string) []byte {
	d := sha256.Sum256([]byte(key))
	return d[:]
}

// sameDigest compares in constant time.
func sameDigest(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
