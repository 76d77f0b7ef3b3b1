//go:build godwit_libcrypto && linux && (amd64 || arm64)

package libcrypto

import (
	"crypto"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Built says whether this build can use libcrypto.
const Built = true

// soname names the library of OpenSSL 3.x, which all have one binary interface.
const soname = "libcrypto.so.3"

// Library is libcrypto, loaded. It is safe for concurrent use. It stays loaded as long as the process lives, since no
// thread may be in it when it goes.
type Library struct {
	version string
	calls   calls
	digests map[crypto.Hash]uintptr // const EVP_MD *, which live as long as the library
	room    sync.Pool               // *call
	held    atomic.Int64            // keys that libcrypto has memory for
}

// calls are the addresses of the functions that signing needs.
type calls struct {
	readKey, freeKey, keySize               uintptr
	newContext, freeContext                 uintptr
	signInit, setPadding, setDigest, signIt uintptr
	clearErrors                             uintptr
}

// initNoAtexit keeps libcrypto from tidying up at exit, when signatures may still be under way.
const initNoAtexit = 0x00080000

// Open loads the library. The error wraps ErrAbsent or ErrTooOld.
func Open() (*Library, error) { return open(soname, MinVersion) }

func open(name string, oldest uintptr) (*Library, error) {
	handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	find := func(name string) uintptr {
		var address uintptr
		if err == nil {
			address, err = purego.Dlsym(handle, name)
		}
		return address
	}
	number, text, start := find("OpenSSL_version_num"), find("OpenSSL_version"), find("OPENSSL_init_crypto")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if v, _, _ := purego.SyscallN(number); v < oldest {
		return nil, fmt.Errorf("%w: its number is %#x", ErrTooOld, v)
	}
	l := &Library{
		calls: calls{
			readKey: find("d2i_PrivateKey"), freeKey: find("EVP_PKEY_free"), keySize: find("EVP_PKEY_get_size"),
			newContext: find("EVP_PKEY_CTX_new"), freeContext: find("EVP_PKEY_CTX_free"),
			signInit: find("EVP_PKEY_sign_init"), setPadding: find("EVP_PKEY_CTX_set_rsa_padding"),
			setDigest: find("EVP_PKEY_CTX_set_signature_md"), signIt: find("EVP_PKEY_sign"),
			clearErrors: find("ERR_clear_error"),
		},
		digests: make(map[crypto.Hash]uintptr),
		room:    sync.Pool{New: func() any { return new(call) }},
	}
	for hash, name := range map[crypto.Hash]string{
		crypto.SHA256: "EVP_sha256", crypto.SHA384: "EVP_sha384", crypto.SHA512: "EVP_sha512",
	} {
		if f := find(name); err == nil {
			l.digests[hash], _, _ = purego.SyscallN(f)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if ok, _, _ := purego.SyscallN(start, initNoAtexit, 0); int32(ok) != 1 {
		return nil, fmt.Errorf("%w: it did not start", ErrAbsent)
	}
	v, _, _ := purego.SyscallN(text, 0) // OPENSSL_VERSION
	l.version = textAt(v)
	return l, nil
}

// Version returns what the library calls itself, such as "OpenSSL 3.0.19 27 Jan 2026".
func (l *Library) Version() string { return l.version }

// textAt copies a text that the library owns, up to its NUL or 256 octets.
func textAt(address uintptr) string {
	if address == 0 {
		return ""
	}
	var out []byte
	// The address is no memory of Go's, which nothing here ever moves or frees; the detour keeps vet from taking it for one.
	p := *(*unsafe.Pointer)(unsafe.Pointer(&address))
	for len(out) < 256 {
		c := *(*byte)(unsafe.Add(p, len(out)))
		if c == 0 {
			break
		}
		out = append(out, c)
	}
	return string(out)
}
