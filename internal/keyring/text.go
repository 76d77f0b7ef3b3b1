package keyring

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/godwit-mta/godwit/mailauth/dkim"
)

const (
	defaultBits = 2048 // RFC 8301, 3.2
	maxBits     = 4096 // what every verifier must take
)

// generate makes a key.
func generate(a Algorithm, bits int) (crypto.Signer, error) {
	if a == Ed25519 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

// public returns of a public key what p= holds, the algorithm and the size.
func public(key crypto.PublicKey) (p []byte, a Algorithm, bits int, err error) {
	switch pub := key.(type) {
	case *rsa.PublicKey:
		bits = pub.N.BitLen()
		if bits < dkim.MinRSABits || bits > maxBits {
			return nil, "", 0, fmt.Errorf("it is an RSA key of %d bits; use %d to %d", bits, dkim.MinRSABits, maxBits)
		}
		p, err = x509.MarshalPKIXPublicKey(pub)
		return p, RSA, bits, err
	case ed25519.PublicKey:
		return pub, Ed25519, 256, nil
	}
	return nil, "", 0, errors.New("it is neither an RSA key nor an Ed25519 key")
}

// ParsePrivate reads a private key: PEM (PKCS #8 or PKCS #1), or 32 octets in base64, which is how Ed25519 keys for DKIM are often
// kept. Errors tell nothing of what was read.
func ParsePrivate(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err == nil && len(seed) == ed25519.SeedSize {
			return ed25519.NewKeyFromSeed(seed), nil
		}
		return nil, errors.New("it is no private key: neither PEM nor 32 octets in base64")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case ed25519.PrivateKey:
			return key, nil
		}
		return nil, errors.New("it is neither an RSA key nor an Ed25519 key")
	}
	if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("it is protected by a password: write it without one")
	}
	return nil, errors.New("it is no private key in PEM (PKCS #8 or PKCS #1)")
}

// ParsePublic reads a public key in PEM (PKIX).
func ParsePublic(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no public key in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is no public key in PEM (\"PUBLIC KEY\")")
	}
	return key, nil
}

// Record is a TXT record as it is to stand in DNS.
type Record struct {
	Name string // without a final dot
	Text string
}

// Strings returns the text in the pieces of 255 octets at most that a TXT record consists of (RFC 1035, 3.3).
func (r *Record) Strings() []string {
	const most = 255
	var list []string
	for rest := r.Text; rest != ""; {
		n := min(len(rest), most)
		list, rest = append(list, rest[:n]), rest[n:]
	}
	return list
}

// Zone returns the record as it is written into a zone file (RFC 1035, 5.1).
func (r *Record) Zone() string {
	list := r.Strings()
	if len(list) == 1 {
		return fmt.Sprintf("%s. IN TXT %q", r.Name, list[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", r.Name)
	for _, s := range list {
		fmt.Fprintf(&b, "\n    %q", s)
	}
	b.WriteString(" )")
	return b.String()
}

// record returns what is to be published of a key.
func (r *record) record() Record {
	return Record{Name: r.dnsName(), Text: "v=DKIM1; k=" + r.Algorithm.tag() + "; p=" + base64.StdEncoding.EncodeToString(r.Public)}
}

// revocation returns what takes its place once it is revoked.
func (r *record) revocation() Record {
	return Record{Name: r.dnsName(), Text: "v=DKIM1; k=" + r.Algorithm.tag() + "; p="}
}
