package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say how to open a Log. Zero values mean defaults.
type Options struct {
	// Dir is the journal's own directory. It is made if missing.
	Dir string
	// FS is the file system; default: the operating system's, with vectored writes.
	FS vfs.FS

	// Owner names whose journal this is, at most 255 octets. An existing journal must have the same; empty takes what
	// is there.
	Owner string
	// Epoch is the reign of the holder. Lower than that on disk is refused with ErrFenced; 0 takes what is there, at
	// least 1.
	Epoch uint64

	// SegmentSize is the octets after which a segment is sealed; default 64 MiB, from 16 KiB to 1 GiB. A batch that
	// is larger gets a segment of its own.
	SegmentSize int64
	// PendingBytes bounds what is handed over and not yet written; default 64 MiB. Append waits when it is reached.
	PendingBytes int64
	// LazyDelay is how long a lazy batch may wait for a sync; default 10 ms.
	LazyDelay time.Duration
	// Spares is how many removed segments are kept to be written again: overwriting allocated blocks makes each sync
	// about a third quicker than growing a file. Default 2; negative: none.
	Spares int

	// Sealer encrypts what records hold; nil: nothing is encrypted, and what is cannot be read.
	Sealer Sealer

	// MinFree is the free space of the disk below which Append refuses batches with bodies, so that the records that
	// let mail out still find room; default 64 MiB; negative: none. Below MinFree and four segments nothing is
	// allocated ahead or kept to be reused.
	MinFree int64

	// ReadOnly opens for reading what is there now: takes no lock, writes nothing, and works beside a running server.
	ReadOnly bool

	// Rand gives the salts of segments; default crypto/rand.
	Rand io.Reader
	// Logger: nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

const (
	defaultSegmentSize  = 64 << 20
	defaultPendingBytes = 64 << 20
	defaultLazyDelay    = 10 * time.Millisecond
	defaultSpares       = 2
	defaultMinFree      = 64 << 20

	minSegmentSize = 16 << 10
	maxSegmentSize = 1 << 30
	maxOwner       = 255
)

func (o Options) filled() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if o.PendingBytes == 0 {
		o.PendingBytes = defaultPendingBytes
	}
	if o.LazyDelay == 0 {
		o.LazyDelay = defaultLazyDelay
	}
	if o.Spares == 0 {
		o.Spares = defaultSpares
	}
	o.Spares = max(o.Spares, 0)
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	o.MinFree = max(o.MinFree, 0)
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no directory given"))
	}
	if o.SegmentSize < minSegmentSize || o.SegmentSize > maxSegmentSize {
		errs = append(errs, fmt.Errorf("segment size %d is not between %d and %d", o.SegmentSize, minSegmentSize,
			maxSegmentSize))
	}
	if o.PendingBytes < 0 {
		errs = append(errs, fmt.Errorf("pending bytes %d is negative", o.PendingBytes))
	}
	if o.LazyDelay < 0 {
		errs = append(errs, fmt.Errorf("lazy delay %v is negative", o.LazyDelay))
	}
	if len(o.Owner) > maxOwner {
		errs = append(errs, fmt.Errorf("owner has %d octets, at most %d", len(o.Owner), maxOwner))
	}
	if len(errs) > 0 {
		return o, fmt.Errorf("journal options: %w", errors.Join(errs...))
	}
	return o, nil
}
