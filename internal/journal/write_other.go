//go:build !linux

package journal

import "github.com/cockroachdb/pebble/v2/vfs"

// rewrites says that a vector can be written again at the same place.
const rewrites = false

// systemVector writes slice by slice where there is no pwritev.
type systemVector struct{}

func (*systemVector) writeAt(f vfs.File, slices [][]byte, _ int64) error {
	for _, s := range slices {
		if _, err := f.Write(s); err != nil {
			return err
		}
	}
	return nil
}

func truncate(vfs.File, int64) {}
