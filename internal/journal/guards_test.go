package journal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// inodeFS is a disk that takes so many more files.
type inodeFS struct {
	vfs.FS
	left atomic.Uint64
}

func (fs *inodeFS) FreeInodes(string) (uint64, bool) { return fs.left.Load(), true }

// TestNoInodes: a disk without inodes is as full as one without blocks.
func TestNoInodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := &inodeFS{FS: vfs.NewMem()}
		fs.left.Store(1000)
		j := openRunning(t, journal.Options{FS: fs, Dir: testDir})
		if err := j.Room(0); err != nil {
			t.Error(err)
		}
		fs.left.Store(100)
		time.Sleep(2 * time.Second)
		if err := j.Append(t.Context(), &journal.Batch{Records: []journal.Record{{Meta: []byte("x")}}}); err != nil {
			t.Error(err)
		}
		if err := j.Room(0); !errors.Is(err, journal.ErrFull) {
			t.Errorf("room with 100 inodes: %v", err)
		}
		fs.left.Store(1000)
		time.Sleep(time.Second)
		if err := j.Room(0); err != nil {
			t.Error(err)
		}
	})
}

// TestRoomCounts: what is under way counts, so that a burst does not eat the reserve.
func TestRoomCounts(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 100 << 20, TotalBytes: 1 << 30})
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir})
	if err := j.Room(30 << 20); err != nil {
		t.Error(err)
	}
	if err := j.Room(40 << 20); !errors.Is(err, journal.ErrFull) {
		t.Errorf("room for 40 MiB of 36: %v", err)
	}
	if err := j.Room(1 << 20); err != nil {
		t.Errorf("one message that is too large stops all others: %v", err)
	}
}

// TestBallast: part of the reserve is a file that is given up once, and made again when there is room.
func TestBallast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *journal.Log {
		return openRunning(t, journal.Options{Dir: dir, MinFree: 1 << 20, SegmentSize: 1 << 20})
	}
	j := open()
	file := filepath.Join(dir, "BALLAST")
	if info, err := os.Stat(file); err != nil || info.Size() != 1<<19 {
		t.Skipf("needs a file system that allocates blocks ahead (fallocate: ext4, xfs, tmpfs): %v", err)
	}
	if !j.Relieve() {
		t.Error("there was no ballast")
	}
	time.Sleep(10 * time.Millisecond)
	if !j.Relieve() { // the first call looked, and there is room
		t.Error("the ballast was not made again")
	}
	if err := j.Room(0); err != nil {
		t.Error(err)
	}
}

// TestDamageRemembered: a later process knows of damage that it has no reason to meet, and so does not delete it.
func TestDamageRemembered(t *testing.T) {
	t.Parallel()
	w := write(t)
	name := w.sealedName(t)
	fs := w.sealed.spoilt(name, w.records[3].Position.Offset()).fs(t)
	o := journal.Options{FS: fs, Dir: testDir}
	j := openRunning(t, o)
	if _, err := j.Read(t.Context(), w.records[3].Position); !errors.Is(err, journal.ErrDamaged) {
		t.Fatal(err)
	}
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = r.Next(t.Context(), false)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	found := j.Damage()
	if len(found) == 0 {
		t.Fatal("no damage")
	}
	again := func(files disk) *journal.Log { return openRunning(t, journal.Options{FS: files.fs(t), Dir: testDir}) }
	next := snapshot(t, fs).fs(t)
	j = openRunning(t, journal.Options{FS: next, Dir: testDir})
	if got := j.Damage(); len(got) != len(found) || got[0] != found[0] {
		t.Errorf("damage %v, it was %v", got, found)
	}
	if err := j.Remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	aside := snapshot(t, next)
	if _, kept := aside[strings.Replace(name, ".seg", ".damaged", 1)]; !kept {
		t.Fatal("a damaged segment was deleted by the next process")
	}
	if got := again(aside).Damage(); len(got) != len(found) {
		t.Errorf("damage %v is not told while the segment is kept", got)
	}
	delete(aside, strings.Replace(name, ".seg", ".damaged", 1))
	if got := again(aside).Damage(); len(got) != 0 {
		t.Errorf("damage %v is told although nobody keeps the segment", got)
	}
}

// TestR2RemoveRefused: an extent that the file system does not remove is whole, says so, and goes later.
func TestR2RemoveRefused(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if refuse.Load() && (op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpRename && strings.Contains(op.Path, "-")) {
			return syscall.EACCES
		}
		return nil
	}))
	for _, spares := range []int{-1, 2} {
		j := openRunning(t, journal.Options{FS: fs, Dir: fmt.Sprint(testDir, spares), SegmentSize: 16 << 10, Spares: spares})
		body := smtp.BodyOf([]byte(strings.Repeat("x\r\n", 4000)))
		b := &journal.Batch{Records: []journal.Record{{Body: body}}}
		if err := errors.Join(j.Append(t.Context(), b), j.Roll(t.Context())); err != nil {
			t.Fatal(err)
		}
		body.Release()
		p := b.Records[0].Position
		refuse.Store(true)
		if err := j.Remove(t.Context(), j.ExtentOf(p)); !errors.Is(err, journal.ErrStays) {
			t.Errorf("removing: %v", err)
		}
		rec, err := j.Read(t.Context(), p)
		if err != nil {
			t.Fatalf("reading what stays: %v", err)
		}
		rec.Body.Release()
		refuse.Store(false)
		if err := j.Remove(t.Context(), j.ExtentOf(p)); err != nil {
			t.Error(err)
		}
		if j.Err() != nil {
			t.Error(j.Err())
		}
	}
}

// TestSpareRefused: a spare that cannot be renamed is no reason to stop.
func TestSpareRefused(t *testing.T) {
	t.Parallel()
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRename && strings.HasSuffix(op.Path, ".spare") {
			return syscall.EACCES
		}
		return nil
	}))
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir, SegmentSize: 16 << 10})
	for range 3 {
		body := smtp.BodyOf([]byte(strings.Repeat("x\r\n", 4000)))
		b := &journal.Batch{Records: []journal.Record{{Body: body}}}
		if err := errors.Join(j.Append(t.Context(), b), j.Roll(t.Context())); err != nil {
			t.Fatal(err)
		}
		body.Release()
		if err := j.Remove(t.Context(), j.ExtentOf(b.Records[0].Position)); err != nil {
			t.Fatal(err)
		}
	}
}
