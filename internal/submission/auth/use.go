package auth

import (
	"context"
	"slices"
	"time"

	"github.com/godwit-mta/godwit/internal/store"
)

// usesPerBatch bounds one write of last uses.
const usesPerBatch = 500

// keepUses writes last uses now and then, and once more at the end. A crash loses what is not written yet: when a
// credential was used, and that it is at home somewhere.
func (d *Directory) keepUses(ctx context.Context) {
	tick := time.NewTicker(d.o.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.guard.sweep()
			d.flushUses(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			d.flushUses(last)
			cancel()
			return
		}
	}
}

func (d *Directory) flushUses(ctx context.Context) {
	d.flushes.Lock()
	defer d.flushes.Unlock()
	d.state.mu.RLock()
	entries := make([]*credentialEntry, 0, len(d.state.credentials))
	for _, e := range d.state.credentials {
		entries = append(entries, e)
	}
	d.state.mu.RUnlock()
	var b store.Batch
	n := 0
	write := func() {
		if n == 0 {
			return
		}
		if _, err := d.o.Store.Apply(ctx, &b); err != nil {
			d.o.Logger.Warn("last uses of credentials not written", "error", err)
		}
		b.Reset()
		n = 0
	}
	for _, e := range entries {
		r, ok := e.use.taken()
		if !ok || e.current.Load() == nil {
			continue
		}
		value, err := encode("last use", r)
		if err != nil {
			continue // cannot be: times and addresses
		}
		b.Put(usePrefix+e.id, value)
		if n++; n == usesPerBatch {
			write()
		}
	}
	write()
}

// taken returns what is to be written, if anything.
func (u *use) taken() (useRecord, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.dirty {
		return useRecord{}, false
	}
	u.dirty = false
	return useRecord{Last: u.last, Addrs: slices.Clone(u.addrs)}, true
}
