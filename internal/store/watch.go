package store

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
)

// watcher knows which keys have changed since its owner last asked: per key the latest revision only, so that a slow
// owner costs no more than the keys there are.
type watcher struct {
	prefix string
	signal chan struct{} // one slot

	mu     sync.Mutex
	latest map[string]change
	order  []notice // by revision; one is stale if latest knows a newer revision
}

type change struct {
	revision uint64
	deleted  bool
}

type notice struct {
	key      string
	revision uint64
}

// Watch implements [Store].
func (d *DB) Watch(ctx context.Context, prefix string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		// In one turn, so that no change falls between what exists and what comes.
		select {
		case d.turn <- struct{}{}:
		case <-ctx.Done():
			return
		case <-d.failed:
			yield(Change{}, d.Err())
			return
		case <-d.closed:
			yield(Change{}, ErrClosed)
			return
		}
		if err := d.enter(); err != nil {
			<-d.turn
			yield(Change{}, err)
			return
		}
		w := &watcher{prefix: prefix, signal: make(chan struct{}, 1), latest: make(map[string]change)}
		snapshot, revision := d.snapshots.add(d.pebble.NewSnapshot()), d.Revision()
		d.addWatcher(w)
		d.leave()
		<-d.turn
		defer d.removeWatcher(w)

		ended := func(err error) bool { return err != nil && ctx.Err() != nil }
		if !d.pairs(ctx, snapshot, prefix, func(kv KV, err error) bool {
			return !ended(err) && yield(Change{KV: kv}, err)
		}) {
			return
		}
		if !yield(Change{KV: KV{Revision: revision}, Current: true}, nil) {
			return
		}
		for {
			c, err := d.next(ctx, w)
			if ended(err) || !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// next waits for a change and reads its value.
func (d *DB) next(ctx context.Context, w *watcher) (Change, error) {
	for {
		key, c, ok := w.take()
		if !ok {
			select {
			case <-w.signal:
			case <-ctx.Done():
				return Change{}, context.Cause(ctx)
			case <-d.failed:
				return Change{}, d.Err()
			case <-d.closed:
				return Change{}, ErrClosed
			}
			continue
		}
		if c.deleted {
			return Change{KV: KV{Key: key, Revision: c.revision}, Deleted: true}, nil
		}
		kv, err := d.Get(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound) || err == nil && kv.Revision != c.revision:
			// It has changed again, and that will be told in its turn.
		default:
			return Change{KV: kv}, err
		}
	}
}

func (d *DB) addWatcher(w *watcher) {
	d.watchers.Lock()
	defer d.watchers.Unlock()
	d.watchers.list = append(d.watchers.list, w)
	d.metrics.watchers.Set(float64(len(d.watchers.list)))
}

func (d *DB) removeWatcher(w *watcher) {
	d.watchers.Lock()
	defer d.watchers.Unlock()
	d.watchers.list = slices.DeleteFunc(d.watchers.list, func(o *watcher) bool { return o == w })
	d.metrics.watchers.Set(float64(len(d.watchers.list)))
}

// tell notes the keys of a durable batch for those who watch them.
func (d *DB) tell(b *Batch, revision uint64) {
	d.watchers.Lock()
	defer d.watchers.Unlock()
	for _, w := range d.watchers.list {
		w.note(b, revision)
	}
}

func (w *watcher) note(b *Batch, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	noted := false
	for _, o := range b.ops {
		if !strings.HasPrefix(o.key, w.prefix) {
			continue
		}
		if w.latest[o.key].revision != revision {
			w.order = append(w.order, notice{key: o.key, revision: revision})
		}
		w.latest[o.key] = change{revision: revision, deleted: o.delete}
		noted = true
	}
	if !noted {
		return
	}
	if len(w.order) > 2*len(w.latest)+16 {
		w.order = slices.DeleteFunc(w.order, func(n notice) bool { return w.latest[n.key].revision != n.revision })
	}
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// take returns the oldest change not yet told.
func (w *watcher) take() (key string, c change, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.order) > 0 {
		n := w.order[0]
		w.order = w.order[1:]
		if c, ok := w.latest[n.key]; ok && c.revision == n.revision {
			delete(w.latest, n.key)
			return n.key, c, true
		}
	}
	w.order = nil
	return "", change{}, false
}
