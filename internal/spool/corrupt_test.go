package spool

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/message"
)

// TestCorruptIndex spoils each kind of file of the index. It is used if it is whole, and made anew from the journal if
// not: no entry is ever missing, and none that is over comes back.
func TestCorruptIndex(t *testing.T) {
	t.Parallel()
	whole := vfs.NewMem()
	r := newRig(t, whole, func(r *rig) { r.opts.IndexMemtable = 64 << 10 })
	var waiting, over []message.ID
	for i := range 400 {
		m := r.accept(r.message(fmt.Sprintf("d%d.example", i%7)))
		if i%4 == 0 {
			r.settle(r.taken(m), delivered())
			over = append(over, m.ID)
		} else {
			r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
			waiting = append(waiting, m.ID)
		}
		if i%50 == 49 {
			r.checkpoint()
		}
		if i%150 == 149 {
			if err := r.spool.index.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.spool.lastCheckpoint(); err != nil {
		t.Fatal(err)
	}
	r.close()
	names, err := whole.List("/spool/index")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for how, spoil := range map[string]func([]byte) []byte{
			"flipped bit in the middle": func(p []byte) []byte { p[len(p)/2] ^= 0x10; return p },
			"flipped bit at the end":    func(p []byte) []byte { p[len(p)-3] ^= 0x10; return p },
			"zeroes in the middle":      func(p []byte) []byte { clear(p[len(p)/2 : min(len(p)/2+512, len(p))]); return p },
			"cut in half":               func(p []byte) []byte { return p[:len(p)/2] },
			"all zeroes":                func(p []byte) []byte { clear(p); return p },
			"empty":                     func([]byte) []byte { return nil },
			"gone":                      nil,
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				fs := vfs.NewMem()
				if ok, err := vfs.Clone(whole, fs, "/", "/"); !ok || err != nil {
					t.Fatal(ok, err)
				}
				file := "/spool/index/" + name
				data := contents(t, fs, file)
				switch {
				case spoil == nil || len(data) == 0:
					if err := fs.Remove(file); err != nil {
						t.Fatal(err)
					}
				default:
					replace(t, fs, file, spoil(data))
				}
				r := newRig(t, fs, func(r *rig) { r.opts.IndexMemtable = 64 << 10 })
				check := func() bool {
					t.Helper()
					st := r.spool.Stats()
					if r.spool.Err() != nil {
						return false // found while it was read: the next start makes a new one
					}
					if st.Waiting != len(waiting) || st.Accepted != st.Settled()+uint64(st.Queued()) {
						t.Errorf("%+v", st)
					}
					for _, id := range waiting {
						if _, _, err := r.spool.Message(context.Background(), id); err != nil {
							if r.spool.Err() != nil {
								return false
							}
							t.Fatalf("message %s: %v", id, err)
						}
					}
					for _, id := range over {
						if _, _, err := r.spool.Message(context.Background(), id); err == nil {
							t.Fatalf("message %s is back", id)
						}
					}
					return r.spool.Err() == nil
				}
				if !check() {
					r.reopen()
					if !check() {
						t.Errorf("the index was not made anew: %v", r.spool.Err())
					}
				}
			})
		}
	}
}
