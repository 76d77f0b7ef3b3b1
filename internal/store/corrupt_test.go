package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/store"
)

// TestCorrupt spoils each kind of file of the store. Either all settings are there, or the store does not open (or ends,
// when the damage is met later) and says that it is damaged: never are some of them silently gone.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	const keys = 2000
	whole := vfs.NewMem()
	s, err := store.Open(store.Options{FS: whole, Dir: "store", MemTableBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		var b store.Batch
		b.Put(fmt.Sprintf("key/%04d", i), []byte(strings.Repeat("value ", 20)))
		if _, err := s.Apply(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := whole.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for how, spoil := range map[string]func([]byte) []byte{
			"flipped bit in the middle": func(p []byte) []byte { p[len(p)/2] ^= 0x10; return p },
			"flipped bit at the end":    func(p []byte) []byte { p[len(p)-3] ^= 0x10; return p },
			"zeroes in the middle":      func(p []byte) []byte { clear(p[len(p)/2 : min(len(p)/2+512, len(p))]); return p },
			"cut in half":               func(p []byte) []byte { return p[:len(p)/2] },
			"all zeroes":                func(p []byte) []byte { clear(p); return p },
			"empty":                     func(p []byte) []byte { return nil },
			"gone":                      nil,
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				fs := vfs.NewMem()
				if err := fs.MkdirAll("store", 0o700); err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					f, err := whole.Open("store/" + n)
					if err != nil {
						t.Fatal(err)
					}
					data, err := io.ReadAll(f)
					f.Close()
					if err != nil {
						t.Fatal(err)
					}
					if n == name && (spoil == nil || len(data) == 0) {
						continue
					}
					if n == name {
						data = spoil(append([]byte(nil), data...))
					}
					out, err := fs.Create("store/"+n, vfs.WriteCategoryUnspecified)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := out.Write(data); err != nil {
						t.Fatal(err)
					}
					out.Close()
				}
				found, err := read(t, fs)
				t.Logf("%d keys, %v", found, err)
				if err == nil && found != keys {
					t.Errorf("%d of %d settings are left, and the store is content", found, keys)
				}
				if err != nil && !errors.Is(err, store.ErrDamaged) {
					t.Errorf("the store does not say that it is damaged: %v", err)
				}
			})
		}
	}
}

// read counts the keys of a store.
func read(t *testing.T, fs vfs.FS) (n int, err error) {
	s, err := store.Open(store.Options{FS: fs, Dir: "store", MemTableBytes: 64 << 10, Fatal: func(error) {}})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, err := range s.Scan(ctx, "") {
		if err != nil {
			return n, errors.Join(err, s.Close())
		}
		n++
	}
	return n, s.Close()
}
