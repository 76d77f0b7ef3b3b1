//go:build godwit_libcrypto && linux && (amd64 || arm64)

package libcrypto

import (
	"errors"
	"testing"
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
