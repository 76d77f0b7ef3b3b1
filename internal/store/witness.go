package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The witness is a small file beside the engine's that says what the store held after which batch: Pebble goes on
// without what a damaged manifest or log no longer names, and nobody would know that settings are gone. It is written
// after each batch, when that is durable, and never synced: it may be older than the store, which then is believed, and
// is never newer.
//
//	 0 8  magic
//	 8 8  revision of the latest batch
//	16 8  sum over all keys, see mark
//	24 4  CRC-32C of the above
const (
	witnessName  = "WITNESS"
	witnessMagic = "GODWITS\n"
	witnessSize  = 28
)

// ErrDamaged says that the store is not what was written. It does not open, rather than go on without some settings.
var ErrDamaged = errors.New("store is damaged")

type witness struct {
	revision uint64
	sum      uint64 // over all keys; what is added for a put is subtracted when the key is put again or deleted
}

// mark is what a key adds to the sum.
func mark(key string, revision uint64) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], revision)
	_, _ = h.Write([]byte(key))
	_, _ = h.Write(b[:])
	return h.Sum64()
}

// after returns the sum after a batch with the next revision. turn is held.
func (d *DB) after(b *Batch, revision uint64) (uint64, error) {
	sum := d.sum
	within := make(map[string]uint64, len(b.ops)) // 0: deleted by this batch
	for _, o := range b.ops {
		old, ok := within[o.key]
		if !ok {
			have, err := get(d.pebble, o.key)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return 0, err
			}
			old = have.Revision
		}
		if old != 0 {
			sum -= mark(o.key, old)
		}
		within[o.key] = 0
		if !o.delete {
			within[o.key] = revision
			sum += mark(o.key, revision)
		}
	}
	return sum, nil
}

// testify writes the witness. A crash leaves the old one, the new one, or none that can be read.
func (d *DB) testify() {
	b := make([]byte, 0, witnessSize)
	b = append(b, witnessMagic...)
	b = binary.BigEndian.AppendUint64(b, d.revision.Load())
	b = binary.BigEndian.AppendUint64(b, d.sum)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	fs := d.options.FS
	path := fs.PathJoin(d.options.Dir, witnessName)
	f, err := fs.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = fs.Rename(path+".tmp", path)
	}
	if err != nil {
		d.logger.Warn("the store's witness was not written", slog.Any("error", err))
	}
}

// recall reads the witness; false if there is none that can be read.
func (d *DB) recall() (witness, bool) {
	f, err := d.options.FS.Open(d.options.FS.PathJoin(d.options.Dir, witnessName))
	if err != nil {
		return witness{}, false
	}
	defer f.Close()
	b := make([]byte, witnessSize)
	if n, err := f.ReadAt(b, 0); n < witnessSize || err != nil && !errors.Is(err, io.EOF) {
		return witness{}, false
	}
	if string(b[:8]) != witnessMagic ||
		binary.BigEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], crc32.MakeTable(crc32.Castagnoli)) {
		return witness{}, false
	}
	return witness{revision: binary.BigEndian.Uint64(b[8:]), sum: binary.BigEndian.Uint64(b[16:])}, true
}

// verify reads all keys and compares them with the witness.
func (d *DB) verify() error {
	it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: []byte{dataPrefix}, UpperBound: []byte{dataPrefix + 1}})
	if err != nil {
		return err
	}
	d.sum = 0
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil && len(v) < revisionSize {
			err = fmt.Errorf("%w: value of %q has no revision", ErrDamaged, it.Key()[1:])
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		d.sum += mark(string(it.Key()[1:]), binary.BigEndian.Uint64(v))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	w, ok := d.recall()
	switch have := d.revision.Load(); {
	case !ok:
	case have < w.revision:
		return fmt.Errorf("%w: it ends with change %d, and there were %d", ErrDamaged, have, w.revision)
	case have == w.revision && d.sum != w.sum:
		return fmt.Errorf("%w: some of its settings are missing", ErrDamaged)
	}
	d.testify()
	return nil
}

// damage tells an engine that cannot read what is there from one that the system does not let.
func damage(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrLocked) || errors.Is(err, os.ErrPermission) ||
		ok && errno != syscall.ENOENT {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
