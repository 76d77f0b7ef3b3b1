package signing

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"log/slog"

	"github.com/godwit-mta/godwit/internal/signing/libcrypto"
)

// Primitive is what signs with RSA: libcrypto in a build that has it and where it can be used, and Go's own implementation
// otherwise. Both make the same signatures. It is safe for concurrent use.
type Primitive struct {
	lib *libcrypto.Library // nil: Go
	why error              // why not libcrypto
	log *slog.Logger
}

// NewPrimitive looks for libcrypto. A nil logger discards.
func NewPrimitive(log *slog.Logger) *Primitive {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Primitive{log: log}
	p.lib, p.why = libcrypto.Open()
	return p
}

// RSA returns what signs with a key: the key itself where libcrypto does not take it.
func (p *Primitive) RSA(key *rsa.PrivateKey) crypto.Signer {
	if p.lib == nil {
		return key
	}
	s, err := p.lib.Signer(key)
	if err != nil {
		p.log.Warn("Go signs with an RSA key that libcrypto does not take", "error", err)
		return key
	}
	return s
}

// String says who signs, for people: "Go", or "libcrypto (OpenSSL 3.0.19 27 Jan 2026)", or why the build that could use it does not.
func (p *Primitive) String() string {
	switch {
	case p.lib != nil:
		return "libcrypto (" + p.lib.Version() + ")"
	case errors.Is(p.why, libcrypto.ErrNotBuilt):
		return "Go"
	}
	return "Go, since " + p.why.Error()
}
