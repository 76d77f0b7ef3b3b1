//go:build !linux

package journal

import "github.com/cockroachdb/pebble/v2/vfs"

// systemVector writes slice by slice where there is no pwritev.
type systemVector struct{}

func (*systemVector) writeAt(f vfs.File, slices [][]byte, off int64) error {
	for _, s := range slices {
		n, err := f.WriteAt(s, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func truncate(vfs.File, int64) {}
