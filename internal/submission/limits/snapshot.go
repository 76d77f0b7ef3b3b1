package limits

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

const (
	prefix   = "limit/" // + kind + "/" + name
	pause    = time.Minute
	perBatch = 1000 // holders
	// stored bounds what one round writes, so that a flood of addresses does not become a flood of writes; the rest follows
	// in the next rounds.
	stored = 20 * perBatch
)

// record is a holder as the store has it. Minutes are over before a restart is.
type record struct {
	Used   map[string]usedRecord   `json:"used,omitempty"`   // by name of the limit
	Unique map[string]uniqueRecord `json:"unique,omitempty"` // by span
}

type usedRecord struct {
	Last  int64   `json:"last"`
	Count []int64 `json:"count"` // of parts last-n+1 .. last
}

type uniqueRecord struct {
	Last   int64            `json:"last"`
	Exact  map[uint64]int64 `json:"exact,omitempty"`
	Sketch [][]byte         `json:"sketch,omitempty"` // of parts last-n+1 .. last
}

// Load reads what the last process has counted. It is called before the first Take.
func (l *Limiter) Load(ctx context.Context) error {
	if l.opts.Store == nil {
		return nil
	}
	now := time.Now()
	for kv, err := range l.opts.Store.Scan(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("limits: read counters: %w", err)
		}
		kind, name, ok := parseKey(kv.Key)
		var r record
		if !ok || json.Unmarshal(kv.Value, &r) != nil {
			// Counters are worth less than a start: what cannot be read has counted nothing.
			l.opts.Logger.Warn("counters of a sender cannot be read and begin anew", "key", kv.Key)
			continue
		}
		h := l.holder(kind, name)
		h.mu.Lock()
		h.restoreLocked(&r, now)
		h.mu.Unlock()
	}
	return nil
}

func parseKey(key string) (Kind, string, bool) {
	kind, name, ok := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	k, known := ParseKind(kind)
	return k, name, ok && known && name != ""
}

func (h *holder) key() string { return prefix + h.kind.String() + "/" + h.name }

// Run writes what has changed to the store every minute, and once more at its end.
func (l *Limiter) Run(ctx context.Context) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.Save(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			l.Save(last)
			return nil
		}
	}
}

// Save writes holders that have changed, and deletes those whose hours and days are empty again.
func (l *Limiter) Save(ctx context.Context) {
	if l.opts.Store == nil {
		return
	}
	now := time.Now()
	var batch store.Batch
	written, inBatch := 0, []*holder(nil)
	flush := func() bool {
		_, err := l.opts.Store.Apply(ctx, &batch)
		if err != nil {
			for _, h := range inBatch {
				h.markDirty()
			}
			if !errors.Is(err, context.Canceled) {
				l.metrics.snapshots.Inc()
				l.opts.Logger.Warn("counters of senders not written, a restart would forget the last ones", "error", err)
			}
		}
		batch.Reset()
		written += len(inBatch)
		inBatch = inBatch[:0]
		return err == nil
	}
	size := 0
	changed, gone := l.changed(now)
	for _, key := range gone {
		batch.Delete(key)
	}
	for _, h := range changed {
		value, err := h.encode(now)
		if err != nil {
			l.opts.Logger.Error("counters of a sender cannot be encoded", "key", h.key(), "error", err)
			continue
		}
		if value == nil {
			batch.Delete(h.key())
		} else {
			batch.Put(h.key(), value)
		}
		size += len(value)
		if inBatch = append(inBatch, h); len(inBatch) >= perBatch || size > store.MaxBatch/4 {
			size = 0
			if !flush() || written >= stored {
				return
			}
		}
	}
	if len(inBatch)+len(gone) > 0 {
		flush()
	}
}

// over is how long after its last count nothing of a holder is left.
const over = 25 * time.Hour

// changed returns the holders to write, and the keys of those that were forgotten.
func (l *Limiter) changed(now time.Time) (list []*holder, gone []string) {
	for k := range l.tables {
		t := &l.tables[k]
		t.mu.Lock()
		n := min(len(t.mu.gone), perBatch)
		gone = append(gone, t.mu.gone[:n]...)
		t.mu.gone = t.mu.gone[n:]
		for e := t.mu.recent.Front(); e != nil && len(list) < stored; e = e.Next() {
			h := e.Value.(*holder)
			h.mu.Lock()
			if h.mu.dirty || !h.mu.written.IsZero() && now.Sub(h.mu.written) > over {
				list = append(list, h)
			}
			h.mu.Unlock()
		}
		t.mu.Unlock()
	}
	return list, gone
}

func (h *holder) isStored() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.mu.written.IsZero()
}

func (h *holder) markDirty() {
	h.mu.Lock()
	h.mu.dirty = true
	h.mu.Unlock()
}

// encode returns what is to be stored, nil if that is nothing.
func (h *holder) encode(now time.Time) ([]byte, error) {
	h.mu.Lock()
	r := record{Used: make(map[string]usedRecord), Unique: make(map[string]uniqueRecord)}
	for p := Hour; p < spans; p++ {
		for s := range Unique {
			w := &h.mu.used[s][p]
			if w.count == nil {
				continue
			}
			w.move(p, partOf(p, now))
			if w.sum() == 0 {
				continue
			}
			u := usedRecord{Last: w.last, Count: make([]int64, parts[p])}
			for i := range parts[p] {
				u.Count[i] = w.count[(w.last+1+i)%parts[p]]
			}
			r.Used[Name(s, p)] = u
		}
		if u := h.mu.unique[p]; u != nil {
			u.move(sixthOf(p, now))
			if rec := u.record(); rec != nil {
				r.Unique[p.String()] = *rec
			}
		}
	}
	empty := len(r.Used) == 0 && len(r.Unique) == 0
	h.mu.dirty, h.mu.written = false, now
	if empty {
		h.mu.written = time.Time{}
	}
	h.mu.Unlock()
	if empty {
		return nil, nil
	}
	p, err := json.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("encode counters: %w", err)
	}
	return p, nil
}

func (u *uniques) record() *uniqueRecord {
	switch {
	case u.sketch != nil:
		r := &uniqueRecord{Last: u.last}
		for i := range int64(sketchParts) {
			part := &u.sketch.parts[(u.last+1+i)%sketchParts]
			r.Sketch = append(r.Sketch, part[:])
		}
		return r
	case len(u.exact) > 0:
		r := &uniqueRecord{Last: u.last, Exact: make(map[uint64]int64, len(u.exact))}
		for h, seen := range u.exact {
			r.Exact[h] = seen
		}
		return r
	}
	return nil
}

// restoreLocked takes over a record as far as it makes sense.
func (h *holder) restoreLocked(r *record, now time.Time) {
	for p := Hour; p < spans; p++ {
		for s := range Unique {
			u, ok := r.Used[Name(s, p)]
			if !ok || int64(len(u.Count)) != parts[p] || u.Last < parts[p] || u.Last > partOf(p, now) {
				continue
			}
			w := &h.mu.used[s][p]
			w.move(p, u.Last)
			for i, n := range u.Count {
				w.count[(u.Last+1+int64(i))%parts[p]] = max(n, 0)
			}
			w.move(p, partOf(p, now))
		}
		rec, ok := r.Unique[p.String()]
		if !ok || rec.Last < sketchParts || rec.Last > sixthOf(p, now) {
			continue
		}
		u := &uniques{last: rec.Last}
		if len(rec.Sketch) == sketchParts {
			u.sketch = new(sketch)
			for i, part := range rec.Sketch {
				copy(u.sketch.parts[(rec.Last+1+int64(i))%sketchParts][:], part)
			}
			u.sketch.join()
		} else if len(rec.Exact) <= exactMost {
			u.exact = rec.Exact
		}
		u.move(sixthOf(p, now))
		h.mu.unique[p] = u
	}
	h.mu.written = now.Add(-2 * over) // looked at in the first round: what is over goes from the store
}
