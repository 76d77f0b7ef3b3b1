package journal

import (
	"io"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// rewrites says that a vector can be written again at the same place.
const rewrites = true

// IOV_MAX of Linux.
const maxVector = 1024

// systemVector is pwritev with a vector that is kept between calls; unix.Pwritev would allocate one each time.
type systemVector struct{ vector []unix.Iovec }

func (v *systemVector) writeAt(f vfs.File, slices [][]byte, off int64) error {
	for len(slices) > 0 {
		n := min(len(slices), maxVector)
		v.vector = v.vector[:0]
		for _, s := range slices[:n] {
			if len(s) == 0 {
				continue
			}
			e := unix.Iovec{Base: unsafe.SliceData(s)}
			e.SetLen(len(s))
			v.vector = append(v.vector, e)
		}
		slices = slices[n:]
		if err := v.flush(f.Fd(), &off); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the whole vector at *off and advances it. A short write is gone on with; it becomes an error (no space,
// file too large) at the next call, if there is one.
func (v *systemVector) flush(fd uintptr, off *int64) error {
	rest := v.vector
	for len(rest) > 0 {
		// The kernel takes the offset in two longs; on 64 bits the second is unused.
		const bits = 8 * unix.SizeofLong
		low, high := uintptr(*off), uintptr(uint64(*off)>>(bits-1)>>1)
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)),
			low, high, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		*off += int64(n)
		for left := uint64(n); left > 0; {
			if first := uint64(rest[0].Len); left >= first {
				left -= first
				rest = rest[1:]
				continue
			}
			rest[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(rest[0].Base), left))
			rest[0].SetLen(int(uint64(rest[0].Len) - left))
			left = 0
		}
	}
	clear(v.vector)
	return nil
}

// truncate gives the blocks behind end back, those allocated ahead included. It is a courtesy: the end that counts is
// in the segment's name.
func truncate(f vfs.File, end int64) {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = unix.Ftruncate(int(fd), end)
	}
}
