package store_test

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/store"
)

func TestSmoke(t *testing.T) {
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var b store.Batch
	b.Expect("a", 0)
	b.Put("a", []byte("x"))
	if rev, err := s.Apply(ctx, &b); err != nil || rev != 1 {
		t.Fatal(rev, err)
	}
	if _, err := s.Apply(ctx, &b); err == nil {
		t.Fatal("no conflict")
	}
	for kv, err := range s.Scan(ctx, "") {
		t.Log(kv, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
