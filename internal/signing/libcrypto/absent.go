//go:build !(godwit_libcrypto && linux && (amd64 || arm64))

package libcrypto

import (
	"crypto"
	"crypto/rsa"
)

// Built says whether this build can use libcrypto.
const Built = false

// Library is libcrypto, loaded. This build has none.
type Library struct{}

// Open returns ErrNotBuilt.
func Open() (*Library, error) { return nil, ErrNotBuilt }

// Version returns what the library calls itself.
func (*Library) Version() string { return "" }

// Signer returns ErrNotBuilt.
func (*Library) Signer(*rsa.PrivateKey) (crypto.Signer, error) { return nil, ErrNotBuilt }
