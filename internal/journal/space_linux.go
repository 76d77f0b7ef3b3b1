package journal

import (
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// freeInodes returns how many files can still be made in dir. File systems without a table of fixed size say none of
// none.
func freeInodes(dir string) (uint64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Files == 0 {
		return 0, false
	}
	return s.Ffree, true
}

// allocate makes the file octets long with blocks of its own.
func allocate(f vfs.File, octets int64) error {
	fd := f.Fd()
	if fd == vfs.InvalidFd {
		return unix.ENOTSUP
	}
	return unix.Fallocate(int(fd), 0, 0, octets)
}
