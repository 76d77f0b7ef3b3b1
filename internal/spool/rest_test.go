package spool

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// gateFS makes tables only while its gate is open.
type gateFS struct {
	vfs.FS
	gate chan struct{}
}

func (fs gateFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		<-fs.gate
	}
	return fs.FS.Create(name, category)
}

// TestIndexAtRest: when all its tables in memory were full, the index holds no more of memory than it says once it is at
// rest. With the race detector its tables lie in memory of C's, of which the test sees nothing.
func TestIndexAtRest(t *testing.T) { // not parallel: it looks at the memory of the process
	const table = 16 << 20
	gate := make(chan struct{})
	x, err := openIndex(indexOptions{
		dir: t.TempDir(), fs: gateFS{vfs.Default, gate}, memtable: table, cache: 1 << 20, logger: discard,
		fatal: func(err error) { t.Error(err) }, damaged: func() { t.Error("damaged") },
	})
	if err != nil {
		t.Fatal(err)
	}
	untold := func() int64 { // memory that is not counted as the index's
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s := x.db.Metrics()
		return int64(m.HeapAlloc) - s.BlockCache.Size - int64(s.MemTable.Size) - int64(s.MemTable.ZombieSize)
	}
	before := untold()
	time.AfterFunc(100*time.Millisecond, func() { close(gate) }) // when writes wait
	key, value := make([]byte, 9), make([]byte, 4<<10)
	for n := uint64(0); n < 15*table/4/uint64(len(value)); n++ {
		binary.BigEndian.PutUint64(key[1:], n)
		if err := x.db.Set(key, value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	for r, deadline := &x.resting, time.Now().Add(time.Minute); r.seen == 0 || r.left > 0 || r.done != nil; {
		if err := x.rest(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to rest: %d left", r.left)
		}
	}
	if after := untold(); after > before+table/2 {
		t.Errorf("%d KiB more than before", (after-before)>>10)
	}
	n := x.flushes.Load()
	for range 3 {
		if err := x.rest(time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if m := x.flushes.Load(); m != n {
		t.Errorf("%d flushes at rest", m-n)
	}
	if err := x.close(); err != nil {
		t.Fatal(err)
	}
}
