package signing

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/signing/libcrypto"
)

// TestPrimitive: in every build something signs, says what it is, and makes the signature that Go makes.
func TestPrimitive(t *testing.T) {
	t.Parallel()
	p := NewPrimitive(nil)
	want := "Go"
	if libcrypto.Built {
		if want = "libcrypto ("; p.lib == nil {
			want = "Go, since libcrypto "
		}
	}
	if got := p.String(); !strings.HasPrefix(got, want) || !libcrypto.Built && got != want {
		t.Errorf("%q, want %q", got, want)
	}
	absent := &Primitive{why: errors.Join(libcrypto.ErrTooOld)}
	if got := absent.String(); got != "Go, since libcrypto is older than OpenSSL 3.0" {
		t.Errorf("%q", got)
	}
	key := rsaKey()
	digest := make([]byte, 32)
	for _, s := range []crypto.Signer{p.RSA(key), absent.RSA(key)} {
		sig, err := s.Sign(nil, digest, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest, sig); err != nil {
			t.Error(err)
		}
	}
	odd := *key
	odd.Primes = append(odd.Primes[:2:2], odd.Primes[0]) // a key of three primes, which it is not
	if _, ok := p.RSA(&odd).(*rsa.PrivateKey); !ok {
		t.Error("libcrypto got a key that it does not take")
	}
}
