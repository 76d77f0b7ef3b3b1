//go:build !linux

package journal

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func freeInodes(string) (uint64, bool) { return 0, false }

func allocate(vfs.File, int64) error { return errors.ErrUnsupported }
