package libcrypto_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/internal/signing/libcrypto"
)

// open loads the library or says why there is nothing to test. GODWIT_LIBCRYPTO=required makes its absence a failure.
func open(t testing.TB) *libcrypto.Library {
	t.Helper()
	lib, err := libcrypto.Open()
	switch {
	case err == nil:
		return lib
	case os.Getenv("GODWIT_LIBCRYPTO") == "required":
		t.Fatal(err)
	case errors.Is(err, libcrypto.ErrNotBuilt):
		t.Skip("needs a build with -tags godwit_libcrypto; make check runs it")
	case errors.Is(err, libcrypto.ErrAbsent), errors.Is(err, libcrypto.ErrTooOld):
		t.Skipf("needs OpenSSL 3: %v", err)
	}
	t.Fatal(err)
	return nil
}

func newKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOpen: a build says what it is, and one without libcrypto signs nothing by it.
func TestOpen(t *testing.T) {
	t.Parallel()
	lib, err := libcrypto.Open()
	switch {
	case !libcrypto.Built && !errors.Is(err, libcrypto.ErrNotBuilt):
		t.Errorf("error %v, want ErrNotBuilt", err)
	case err == nil && !strings.Contains(lib.Version(), "SSL"):
		t.Errorf("it calls itself %q", lib.Version())
	case err != nil && lib != nil:
		t.Errorf("a library and %v", err)
	}
}

// TestSameAsGo: for keys of many sizes and for each hash the signature is that of Go's implementation, octet by octet.
func TestSameAsGo(t *testing.T) {
	t.Parallel()
	lib := open(t)
	sizes := []int{1024, 2048, 2048, 2048, 2048, 2056, 2176, 3072, 4096}
	for range 12 {
		sizes = append(sizes, 1024)
	}
	for i, bits := range sizes {
		t.Run(fmt.Sprintf("%d-%d", bits, i), func(t *testing.T) {
			t.Parallel()
			key := newKey(t, bits)
			s, err := lib.Signer(key)
			if err != nil {
				t.Fatal(err)
			}
			if !key.PublicKey.Equal(s.Public()) {
				t.Error("another public key")
			}
			for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
				for range 8 {
					digest := make([]byte, hash.Size())
					_, _ = rand.Read(digest)
					sameAsGo(t, key, s, digest, hash)
				}
				sameAsGo(t, key, s, make([]byte, hash.Size()), hash)
				sameAsGo(t, key, s, bytes.Repeat([]byte{0xff}, hash.Size()), hash)
			}
		})
	}
}

func sameAsGo(t *testing.T, key *rsa.PrivateKey, s crypto.Signer, digest []byte, hash crypto.Hash) {
	t.Helper()
	got, err := s.Sign(nil, digest, hash)
	if err != nil {
		t.Fatal(err)
	}
	want, err := key.Sign(nil, digest, hash)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%v of %x:\n%x, want\n%x", hash, digest, got, want)
	}
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, hash, digest, got); err != nil {
		t.Fatal(err)
	}
}

// TestOthers: what libcrypto is not asked for is done, or refused, as Go does.
func TestOthers(t *testing.T) {
	t.Parallel()
	lib := open(t)
	key := newKey(t, 2048)
	s, err := lib.Signer(key)
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	sig, err := s.Sign(rand.Reader, digest, pss)
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest, sig, pss); err != nil {
		t.Errorf("PSS: %v", err)
	}
	if _, err := s.Sign(rand.Reader, digest[:31], crypto.SHA256); err == nil {
		t.Error("a digest of 31 octets was signed as SHA-256")
	}
}

// TestOddKeys: a key that libcrypto must not get, or does not take, is refused and not signed with.
func TestOddKeys(t *testing.T) {
	t.Parallel()
	lib := open(t)
	good := newKey(t, 2048)
	broken := *good
	broken.D = new(big.Int).Add(good.D, big.NewInt(2))
	broken.Precomputed = rsa.PrecomputedValues{}
	other := newKey(t, 2048)
	mixed := *good
	mixed.PublicKey = other.PublicKey
	mixed.Precomputed = rsa.PrecomputedValues{}
	for name, key := range map[string]*rsa.PrivateKey{"exponent": &broken, "modulus": &mixed} {
		if s, err := lib.Signer(key); err == nil {
			t.Errorf("%s: a signer %v of a broken key", name, s)
		}
	}
}

// TestConcurrent: one key signs on many goroutines while others are made and dropped, whose memory the collector has freed.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	lib := open(t)
	key := newKey(t, 2048)
	s, err := lib.Signer(key)
	if err != nil {
		t.Fatal(err)
	}
	short := newKey(t, 1024)
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			digest := make([]byte, 32)
			for i := range 40 {
				digest[0], digest[1] = byte(g), byte(i)
				got, err := s.Sign(nil, digest, crypto.SHA256)
				if err != nil {
					t.Error(err)
					return
				}
				if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest, got); err != nil {
					t.Error(err)
					return
				}
				if i%8 != 0 {
					continue
				}
				brief, err := lib.Signer(short)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := brief.Sign(nil, digest, crypto.SHA256); err != nil {
					t.Error(err)
				}
				runtime.GC() // the cleanup of a signer that is still in use would free its key
			}
		})
	}
	all.Wait()
}

func BenchmarkSign(b *testing.B) {
	key := newKey(b, 2048)
	digest := make([]byte, 32)
	run := func(name string, s crypto.Signer) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sign(nil, digest, crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("go", key)
	lib, err := libcrypto.Open()
	if err != nil {
		b.Logf("no libcrypto: %v", err)
		return
	}
	s, err := lib.Signer(key)
	if err != nil {
		b.Fatal(err)
	}
	run("libcrypto", s)
}
