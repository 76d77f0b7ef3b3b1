//go:build godwit_libcrypto && linux && (amd64 || arm64)

package libcrypto

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
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
	if _, err := Open(); err != nil {
		t.Skipf("needs OpenSSL 3: %v", err)
	}
	if lib, err := open(soname, 0x90000000); !errors.Is(err, ErrTooOld) || lib != nil {
		t.Errorf("error %v, want ErrTooOld", err)
	}
}

// TestFreed: what libcrypto holds for keys that are gone is given back.
func TestFreed(t *testing.T) {
	t.Parallel()
	lib, err := Open()
	if err != nil {
		t.Skip(err)
	}
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
