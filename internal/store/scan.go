package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A scan reads page by page, so that nothing is locked while the caller looks at a pair.
const (
	pagePairs = 256
	pageBytes = 256 << 10
)

// Scan implements [Store].
func (d *DB) Scan(ctx context.Context, prefix string) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		if err := d.enter(); err != nil {
			yield(KV{}, err)
			return
		}
		snapshot := d.snapshots.add(d.pebble.NewSnapshot())
		d.leave()
		d.pairs(ctx, snapshot, prefix, yield)
	}
}

// pairs yields what snapshot holds under prefix and closes it. It says whether to go on.
func (d *DB) pairs(ctx context.Context, snapshot *pebble.Snapshot, prefix string, yield func(KV, error) bool) bool {
	defer d.drop(snapshot)
	from := dataKey(prefix)
	to := successor(from)
	var page []KV
	for {
		if ctx.Err() != nil {
			yield(KV{}, context.Cause(ctx))
			return false
		}
		var err error
		if page, err = d.page(snapshot, from, to, page[:0]); err != nil {
			yield(KV{}, err)
			return false
		}
		for _, kv := range page {
			if !yield(kv, nil) {
				return false
			}
		}
		if len(page) == 0 {
			return true
		}
		from = append(dataKey(page[len(page)-1].Key), 0)
	}
}

func (d *DB) page(snapshot *pebble.Snapshot, from, to []byte, dst []KV) (page []KV, err error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.leave()
	it, err := snapshot.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, fmt.Errorf("scanning the store: %w", err)
	}
	size := 0
	for ok := it.First(); ok && len(dst) < pagePairs && size < pageBytes; ok = it.Next() {
		kv, err := decode(string(it.Key()[1:]), it.Value())
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		dst = append(dst, kv)
		size += len(kv.Key) + len(kv.Value)
	}
	return dst, errors.Join(it.Error(), it.Close())
}

// successor returns the first key behind all that begin with prefix, which begins with an octet below 255.
func successor(prefix []byte) []byte {
	next := append([]byte(nil), prefix...)
	for next[len(next)-1] == 255 {
		next = next[:len(next)-1]
	}
	next[len(next)-1]++
	return next
}

// drop closes a snapshot, unless Close has.
func (d *DB) drop(s *pebble.Snapshot) {
	if d.enter() != nil {
		return
	}
	defer d.leave()
	if d.snapshots.remove(s) {
		// Its only error is that it is closed already.
		_ = s.Close()
	}
}

// snapshots are those open, so that Close can close them: Pebble cannot be closed before.
type snapshots struct {
	mu   sync.Mutex
	open map[*pebble.Snapshot]struct{}
}

func (l *snapshots) add(s *pebble.Snapshot) *pebble.Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = make(map[*pebble.Snapshot]struct{})
	}
	l.open[s] = struct{}{}
	return s
}

func (l *snapshots) remove(s *pebble.Snapshot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.open[s]
	delete(l.open, s)
	return ok
}

func (l *snapshots) takeAll() []*pebble.Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*pebble.Snapshot
	for s := range l.open {
		all = append(all, s)
	}
	l.open = nil
	return all
}
