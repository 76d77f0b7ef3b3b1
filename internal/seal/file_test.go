package seal_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/store/storetest"
)

func sealFile(t testing.TB, k *seal.Keyring, dir, name string, content []byte) {
	t.Helper()
	fs := k.FS(vfs.Default)
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(filepath.Join(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFiles: written in parts, read in others, at any place, with the size that is expected.
func TestFiles(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), masters(t, seal.NewMaster()))
	inner := vfs.NewMem()
	fs := k.FS(inner)
	want := random(10_007)
	f, err := fs.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	for rest, n := want, 1; len(rest) > 0; n = n*3 + 1 {
		n = min(n, len(rest))
		if _, err := f.Write(bytes.Clone(rest[:n])); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if raw := readAll(t, inner, "a"); bytes.Contains(raw, want[100:132]) || len(raw) != len(want)+64 {
		t.Errorf("%d octets, or clear", len(raw))
	}
	if got := readAll(t, fs, "a"); !bytes.Equal(got, want) {
		t.Error("read back otherwise")
	}
	info, err := fs.Stat("a")
	if err != nil || info.Size() != int64(len(want)) {
		t.Errorf("size %d, %v", info.Size(), err)
	}
	f, err = fs.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int{0, 1, 15, 16, 17, 31, 4096, 10_000} {
		p := make([]byte, 7)
		if _, err := f.ReadAt(p, int64(at)); err != nil || !bytes.Equal(p, want[at:at+7]) {
			t.Errorf("at %d: %x, want %x, %v", at, p, want[at:at+7], err)
		}
	}
	p := make([]byte, 50)
	if n, err := f.ReadAt(p, 10_000); n != 7 || err != io.EOF || !bytes.Equal(p[:7], want[10_000:]) {
		t.Errorf("at the end: %d, %v", n, err)
	}

	rw, err := fs.OpenReadWrite("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte("patched")
	if _, err := rw.WriteAt(patch, 33); err != nil || string(patch) != "patched" {
		t.Fatal(err, patch)
	}
	copy(want[33:], patch)
	if err := rw.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, fs, "a"); !bytes.Equal(got, want) {
		t.Error("WriteAt went elsewhere")
	}
	if rw, err = fs.OpenReadWrite("b", vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	if _, err := rw.Write([]byte("fresh")); err != nil {
		t.Fatal(err)
	}
	if err := rw.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, fs, "b"); string(got) != "fresh" {
		t.Errorf("%q", got)
	}
	again, err := fs.ReuseForWrite("b", "c", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, fs, "c"); len(got) != 0 {
		t.Errorf("%q is left of the old file", got)
	}
}

func readAll(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestClearFiles: what was written before encryption was turned on, or is written after it was turned off, is read as it is.
func TestClearFiles(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), masters(t, seal.NewMaster())
	inner := vfs.NewMem()
	put := func(fs vfs.FS, name string) {
		t.Helper()
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("this is " + name)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put(inner, "before")
	put(open(t, dir, m).FS(inner), "sealed")
	off, err := seal.Open(seal.Options{Dir: dir, Masters: m})
	if err != nil {
		t.Fatal(err)
	}
	fs := off.FS(inner)
	put(fs, "after")
	for _, name := range []string{"before", "sealed", "after"} {
		if got := readAll(t, fs, name); string(got) != "this is "+name {
			t.Errorf("%s: %q", name, got)
		}
	}
	if raw := readAll(t, inner, "after"); string(raw) != "this is after" {
		t.Errorf("%q", raw)
	}
}

// TestStore: a store on sealed files passes what every store must, power cuts and failing disks included.
func TestStore(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), masters(t, seal.NewMaster()))
	sealed := func(o store.Options) (store.Store, error) {
		if o.FS == nil {
			o.FS = vfs.Default
		}
		o.FS = k.FS(o.FS)
		return store.Open(o)
	}
	storetest.Run(t, sealed)
	storetest.Campaign(t, sealed, 40)
}

// TestStoreKeepsSecrets: neither keys nor values are found in any file, in logs, tables or elsewhere.
func TestStoreKeepsSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := open(t, dir, masters(t, seal.NewMaster()))
	s, err := store.Open(store.Options{Dir: filepath.Join(dir, "store"), FS: k.FS(vfs.Default), MemTableBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	const canary = "c4n4ry-in-the-mine"
	for i := range 300 {
		var b store.Batch
		b.Put(canary+strings.Repeat("k", i), []byte(strings.Repeat(canary, 20)))
		if _, err := s.Apply(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	for name, text := range snapshot(t, dir) {
		files++
		if strings.Contains(text, "c4n4ry") {
			t.Errorf("%s holds it", name)
		}
	}
	if files < 5 {
		t.Errorf("only %d files", files)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys.json")); err != nil {
		t.Error(err)
	}
}
