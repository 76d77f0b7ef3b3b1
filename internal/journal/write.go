package journal

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// vectorWriter writes many slices as one behind what the file has got so far: on real files of a system that has it
// with pwritev, elsewhere through one joined buffer.
type vectorWriter struct {
	joined []byte
	system systemVector
}

const keptJoined = 1 << 20

func (v *vectorWriter) write(f vfs.File, direct bool, slices [][]byte, off int64) error {
	if direct && f.Fd() != vfs.InvalidFd {
		return v.system.writeAt(f, slices, off)
	}
	v.joined = v.joined[:0]
	for _, s := range slices {
		v.joined = append(v.joined, s...)
	}
	_, err := f.Write(v.joined)
	if cap(v.joined) > keptJoined {
		v.joined = nil
	}
	return err
}
