//go:build godwit_libcrypto && linux && (amd64 || arm64)

package libcrypto

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

const (
	evpRSA       = 6 // EVP_PKEY_RSA
	pkcs1Padding = 1 // RSA_PKCS1_PADDING
	maxRSABits   = 16384
)

// signer is one key in libcrypto. The key is only read after it was made, and each signature has a context of its own, so
// it is safe for concurrent use.
type signer struct {
	lib  *Library
	key  *rsa.PrivateKey // what libcrypto is not asked for is signed by Go
	size int             // octets of a signature
	pkey uintptr         // EVP_PKEY *, freed after the signer
}

// Signer returns a signer for a key. It has signed once by both implementations: an error says that they differ, or that
// the library does not take the key. It signs SHA-256, SHA-384 and SHA-512 by PKCS #1 v1.5 with libcrypto, everything
// else with Go, and also if libcrypto fails: the signature would be the same.
func (l *Library) Signer(key *rsa.PrivateKey) (crypto.Signer, error) {
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("libcrypto: the key: %w", err)
	}
	if len(key.Primes) != 2 || key.N.BitLen() > maxRSABits {
		return nil, errors.New("libcrypto: a key of more than two primes, or of too many bits")
	}
	s := &signer{lib: l, key: key, size: key.Size(), pkey: l.read(key)}
	if s.pkey == 0 {
		return nil, errors.New("libcrypto: it does not take the key")
	}
	l.held.Add(1)
	runtime.AddCleanup(s, func(pkey uintptr) {
		purego.SyscallN(l.calls.freeKey, pkey)
		l.held.Add(-1)
	}, s.pkey)
	if n, _, _ := purego.SyscallN(l.calls.keySize, s.pkey); int(int32(n)) != s.size {
		return nil, fmt.Errorf("libcrypto: it takes a key of %d octets for one of %d", s.size, int32(n))
	}
	sum := sha256.Sum256([]byte("godwit"))
	want, err := key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("libcrypto: the key: %w", err)
	}
	got := make([]byte, s.size)
	if !s.sign(got, sum[:], l.digests[crypto.SHA256]) || !bytes.Equal(got, want) {
		return nil, errors.New("libcrypto: its signature is not that of Go")
	}
	return s, nil
}

// read hands a key over as DER and clears it.
func (l *Library) read(key *rsa.PrivateKey) uintptr {
	der := x509.MarshalPKCS1PrivateKey(key)
	defer clear(der)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&der[0])
	at := new(unsafe.Pointer) // d2i_PrivateKey moves it behind the key
	*at = unsafe.Pointer(&der[0])
	pkey, _, _ := purego.SyscallN(l.calls.readKey, evpRSA, 0, uintptr(unsafe.Pointer(at)), uintptr(len(der)))
	if pkey == 0 {
		purego.SyscallN(l.calls.clearErrors)
	}
	*at = nil
	return pkey
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return &s.key.PublicKey }

// Sign implements crypto.Signer.
func (s *signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := opts.HashFunc()
	md, ok := s.lib.digests[hash]
	if _, pss := opts.(*rsa.PSSOptions); !ok || pss || len(digest) != hash.Size() {
		return s.key.Sign(rand, digest, opts)
	}
	sig := make([]byte, s.size)
	if !s.sign(sig, digest, md) {
		return s.key.Sign(rand, digest, opts)
	}
	return sig, nil
}

// call is the memory of one signature that libcrypto sees. It lies on the heap, which does not move; that of callers may
// lie on a stack, which does.
type call struct {
	args   [5]uintptr
	size   uintptr // size_t
	digest [sha512.Size]byte
}

// sign fills sig and reports whether it did. A failure stays on the list of errors of its thread, which is short and which
// nobody reads.
func (s *signer) sign(sig, digest []byte, md uintptr) bool {
	c := s.lib.room.Get().(*call)
	done := s.signIn(c, sig, digest, md)
	runtime.KeepAlive(s) // whose cleanup frees the key
	runtime.KeepAlive(sig)
	s.lib.room.Put(c)
	return done
}

func (s *signer) signIn(c *call, sig, digest []byte, md uintptr) bool {
	f := &s.lib.calls
	ctx := c.do(f.newContext, s.pkey, 0)
	if ctx == 0 {
		return false
	}
	defer c.do(f.freeContext, ctx)
	// Each of them returns 1 for success, and 0, -1 or -2 otherwise.
	if int32(c.do(f.signInit, ctx)) != 1 || int32(c.do(f.setPadding, ctx, pkcs1Padding)) != 1 ||
		int32(c.do(f.setDigest, ctx, md)) != 1 {
		return false
	}
	c.size = uintptr(len(sig))
	n := copy(c.digest[:], digest)
	ok := c.do(f.signIt, ctx, uintptr(unsafe.Pointer(&sig[0])), uintptr(unsafe.Pointer(&c.size)),
		uintptr(unsafe.Pointer(&c.digest)), uintptr(n))
	return int32(ok) == 1 && c.size == uintptr(len(sig))
}

// do calls a function. Unlike the arguments of SyscallN, which allocates a list for them, its own keep nothing alive.
func (c *call) do(f uintptr, args ...uintptr) uintptr {
	n := copy(c.args[:], args)
	r, _, _ := purego.SyscallN(f, c.args[:n]...)
	return r
}
