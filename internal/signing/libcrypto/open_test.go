//go:build godwit_libcrypto && linux && (amd64 || arm64)

package libcrypto

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestNotUsable: a library that is not there, is another one, or is too old leaves signing to Go.
func TestNotUsable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{
		"libcrypto-of-nobody.so.3": ErrAbsent, "libc.so.6": ErrAbsent,
	} {
		if lib, err := open(name, MinVersion); !errors.Is(err, want) || lib != nil {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	usable(t)
	if lib, err := open(soname, 0x90000000); !errors.Is(err, ErrTooOld) || lib != nil {
		t.Errorf("error %v, want ErrTooOld", err)
	}
}

// usable returns the system's library.
func usable(t *testing.T) *Library {
	t.Helper()
	lib, err := Open()
	switch {
	case err == nil:
	case os.Getenv("GODWIT_LIBCRYPTO") == "required":
		t.Fatal(err)
	default:
		t.Skipf("needs OpenSSL 3 (libcrypto.so.3), with which make check runs it: %v", err)
	}
	return lib
}

// TestFreed: what libcrypto holds for keys that are gone is given back.
func TestFreed(t *testing.T) {
	t.Parallel()
	lib := usable(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	for range n {
		if _, err := lib.Signer(key); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); lib.held.Load() > 0; time.Sleep(time.Millisecond) {
		runtime.GC() // cleanups run on a goroutine of the runtime, which tells nobody when it is done
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d keys that are gone are still held", lib.held.Load(), n)
		}
	}
}
