package crash

import "testing"

func TestHeapOf(t *testing.T) {
	t.Parallel()
	const profile = `heap profile: 3: 16778304 [9: 99999999] @ heap/1048576
2: 16777216 [3: 25165824] @ 0x1 0x2
#	0x1	github.com/cockroachdb/pebble/v2/internal/manual.New+0x44	/pebble/manual.go:20
#	0x2	github.com/cockroachdb/pebble/v2.(*DB).newMemTable+0x1		/pebble/db.go:2556

1: 1024 [4: 4096] @ 0x1 0x3
#	0x1	github.com/cockroachdb/pebble/v2/internal/manual.New+0x44	/pebble/manual.go:20
#	0x3	github.com/cockroachdb/pebble/v2/internal/cache.Alloc+0x1	/pebble/cache.go:1

0: 0 [1: 8388608] @ 0x1 0x2
#	0x1	github.com/cockroachdb/pebble/v2/internal/manual.New+0x44	/pebble/manual.go:20

1: 64 [1: 64] @ 0x9
#	0x9	github.com/godwit-mta/godwit/internal/spool.newMsg+0x1		/godwit/overlay.go:69

# runtime.MemStats
# HeapAlloc = 17302592
`
	// One object of 1 KiB was sampled, so that there are some 512 such.
	const want = 16<<20 + 512<<10
	if got := heapOf(profile, indexAllocator); got < want-8<<10 || got > want+8<<10 {
		t.Errorf("%d octets, want about %d", got, want)
	}
	if got := heapOf(profile, "nobody.New+"); got != 0 {
		t.Errorf("%d octets of nobody", got)
	}
}
