// Package libcrypto signs with RSA by the libcrypto of OpenSSL, which on many processors takes less than half of the time that Go's
// own implementation takes, for the same bytes. It is called without cgo, through github.com/ebitengine/purego.
//
// Only a build with the tag godwit_libcrypto has it (make build-fast), on Linux for amd64 and arm64, since such a binary is linked
// to the C library dynamically and calls code that Go does not check. In all other builds [Open] says so. In either
// the use is the same:
//
//	lib, err := libcrypto.Open()
//	if err != nil { ... }              // not in this build, not on this machine, too old: Go signs
//	signer, err := lib.Signer(key)     // a crypto.Signer; it has tried the key against Go's implementation
//
// Key memory that libcrypto holds is cleared and freed after the last use of the signer.
//
// RFC 8017, 8.2: RSASSA-PKCS1-v1_5, whose signatures are one value for each key and hash, so that the two implementations can be
// compared octet by octet.
package libcrypto

import "errors"

// MinVersion is the oldest OpenSSL that is used, as its OpenSSL_version_num tells it: 3.0.0, whose functions for keys are safe for
// concurrent use and are no macros.
const MinVersion = 0x30000000

// Errors of [Open].
var (
	ErrNotBuilt = errors.New("this build signs RSA by Go's implementation alone")
	ErrAbsent   = errors.New("libcrypto is not on this machine or cannot be used")
	ErrTooOld   = errors.New("libcrypto is older than OpenSSL 3.0")
)
