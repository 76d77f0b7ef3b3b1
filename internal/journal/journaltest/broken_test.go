package journaltest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCampaignCatches runs the campaign over engines with one fault each and wants it found. Without this a campaign
// that checks nothing would look like a perfect engine.
func TestCampaignCatches(t *testing.T) {
	t.Parallel()
	on := func(wrap func(vfs.FS) vfs.FS) journaltest.Open {
		return func(o journal.Options) (journal.Journal, error) {
			o.FS = wrap(o.FS)
			return journal.Open(o)
		}
	}
	for name, open := range map[string]journaltest.Open{
		"acknowledges before the sync": on(func(fs vfs.FS) vfs.FS {
			return faultyFS{FS: fs, syncData: func(vfs.File) error { return nil }}
		}),
		"tries a failed sync again": on(func(fs vfs.FS) vfs.FS {
			return faultyFS{FS: fs, syncData: func(f vfs.File) error {
				if f.SyncData() == nil {
					return nil
				}
				return f.SyncData()
			}}
		}),
		"does not sync the directory": on(func(fs vfs.FS) vfs.FS { return faultyFS{FS: fs, blindDirs: true} }),
		"believes the page cache":     on(func(fs vfs.FS) vfs.FS { return faultyFS{FS: fs, blindReopen: true} }),
		"writes a batch in parts": func(o journal.Options) (journal.Journal, error) {
			j, err := journal.Open(o)
			if err != nil {
				return nil, err
			}
			return inParts{j}, nil
		},
		"forgets a removal": func(o journal.Options) (journal.Journal, error) {
			j, err := journal.Open(o)
			if err != nil {
				return nil, err
			}
			return noRemoval{j}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const enough = 3000
			for seed := range uint64(enough) {
				if err := journaltest.Seed(t, open, seed, func(string, ...any) {}); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds did not find the fault", enough)
		})
	}
}

// faultyFS hands out files that do not keep their promises.
type faultyFS struct {
	vfs.FS
	syncData    func(vfs.File) error
	blindDirs   bool
	blindReopen bool
}

func (f faultyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	w := faultyFile{File: file, syncData: f.syncData}
	if f.blindReopen && strings.HasSuffix(name, ".seg") {
		w.sync = func() error { return nil }
	}
	return w, nil
}

func (f faultyFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil || !f.blindDirs {
		return file, err
	}
	return faultyFile{File: file, sync: func() error { return nil }}, nil
}

type faultyFile struct {
	vfs.File
	sync     func() error
	syncData func(vfs.File) error
}

func (f faultyFile) Sync() error {
	if f.sync != nil {
		return f.sync()
	}
	return f.File.Sync()
}

func (f faultyFile) SyncData() error {
	if f.syncData != nil {
		return f.syncData(f.File)
	}
	return f.File.SyncData()
}

// inParts appends each record of a batch by itself.
type inParts struct{ journal.Journal }

func (p inParts) Append(ctx context.Context, b *journal.Batch) error {
	var errs []error
	for i := range b.Records {
		one := &journal.Batch{Records: b.Records[i : i+1 : i+1]}
		errs = append(errs, p.Journal.Append(ctx, one))
	}
	return errors.Join(errs...)
}

// noRemoval says that it removed.
type noRemoval struct{ journal.Journal }

func (noRemoval) Remove(context.Context, journal.ExtentID) error { return nil }
