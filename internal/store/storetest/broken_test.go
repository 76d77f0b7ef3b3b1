package storetest_test

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/store/storetest"
)

// TestCampaignCatches runs the campaign over engines with one fault each and wants it found. Without this a campaign
// that checks nothing would look like a perfect engine.
func TestCampaignCatches(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]storetest.Open{
		"acknowledges before the sync": func(o store.Options) (store.Store, error) {
			o.FS = blindFS{FS: o.FS}
			return store.Open(o)
		},
		"does not sync the directory": func(o store.Options) (store.Store, error) {
			o.FS = blindFS{FS: o.FS, dirsOnly: true}
			return store.Open(o)
		},
		"writes a batch in parts": func(o store.Options) (store.Store, error) {
			s, err := store.Open(o)
			if err != nil {
				return nil, err
			}
			return inParts{s}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const enough = 1000
			for seed := range uint64(enough) {
				if err := storetest.Seed(open, seed); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds did not find the fault", enough)
		})
	}
}

// blindFS does not sync.
type blindFS struct {
	vfs.FS
	dirsOnly bool
}

type blindFile struct{ vfs.File }

func (blindFile) Sync() error                { return nil }
func (blindFile) SyncData() error            { return nil }
func (blindFile) SyncTo(int64) (bool, error) { return false, nil }

func (b blindFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := b.FS.Create(name, c)
	if err != nil || b.dirsOnly {
		return f, err
	}
	return blindFile{f}, nil
}

func (b blindFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := b.FS.ReuseForWrite(oldname, newname, c)
	if err != nil || b.dirsOnly {
		return f, err
	}
	return blindFile{f}, nil
}

func (b blindFS) OpenDir(name string) (vfs.File, error) {
	f, err := b.FS.OpenDir(name)
	if err != nil || !b.dirsOnly {
		return f, err
	}
	return blindFile{f}, nil
}

// inParts applies each operation by itself.
type inParts struct{ store.Store }

func (p inParts) Apply(ctx context.Context, b *store.Batch) (revision uint64, err error) {
	for o := range b.Operations() {
		var one store.Batch
		if o.Delete {
			one.Delete(o.Key)
		} else {
			one.Put(o.Key, o.Value)
		}
		if revision, err = p.Store.Apply(ctx, &one); err != nil {
			return 0, err
		}
	}
	return revision, nil
}
