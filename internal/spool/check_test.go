package spool

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	change := func(key func(e *Entry) []byte, value []byte) func(t *testing.T, r *rig, e *Entry) {
		return func(t *testing.T, r *rig, e *Entry) {
			x, err := openIndex(indexOptions{
				dir: "/spool/index", fs: r.fs, memtable: 256 << 10, cache: 1 << 20, logger: discard,
				fatal: func(error) {}, damaged: func() {},
			})
			if err != nil {
				t.Fatal(err)
			}
			if value == nil {
				err = x.db.Delete(key(e), pebble.Sync)
			} else {
				err = x.db.Set(key(e), value, pebble.Sync)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, r *rig, e *Entry)
		index  string
		want   string // in some problem; empty: none
	}{
		{"sound", func(*testing.T, *rig, *Entry) {}, "checked", ""},
		{"no index", func(t *testing.T, r *rig, _ *Entry) {
			if err := r.fs.RemoveAll("/spool"); err != nil {
				t.Fatal(err)
			}
		}, "missing", ""},
		{"index in use", func(t *testing.T, r *rig, _ *Entry) {
			l, err := pebble.LockDirectory("/spool/index", r.fs)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "in use", ""},
		{"lost entry", change(func(e *Entry) []byte { return entryKey(nil, e.Message.ID, e.Index) }, nil),
			"checked", "not in the index"},
		{"lost message", change(func(e *Entry) []byte { return messageKey(nil, e.Message.ID) }, nil),
			"unreadable", "without a message"},
		{"lost due time", change(func(e *Entry) []byte {
			return queueKeyOf(nil, e.Queue(), Waiting, duePoint{micros(e.Due), e.Message.ID, uint32(e.Index)})
		}, nil), "checked", "missing in an order"},
		{"lost age", change(func(e *Entry) []byte {
			return ageKey(nil, micros(e.Message.Expires), e.Message.ID, e.Index)
		}, nil), "checked", "missing in an order"},
		{"stray due time", change(func(e *Entry) []byte {
			return queueKeyOf(nil, e.Queue(), Waiting, duePoint{7, e.Message.ID, 3})
		}, []byte{}), "checked", "has 2 keys, want 1"},
		{"another journal's", change(func(*Entry) []byte { return []byte{keyHeader} },
			appendHeader(nil, &header{owner: "else", watermark: 1})), "unreadable", "belongs to the journal of"},
		{"older version", change(func(*Entry) []byte { return []byte{keyHeader} }, []byte{0}),
			"unreadable", "another version"},
		{"flipped bit in a body", func(t *testing.T, r *rig, e *Entry) {
			flip(t, r.fs, "/journal", "xxxxxxxxxx")
		}, "checked", "checksum of the body"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, vfs.NewMem(), nil)
			m := r.accept(r.message("a.example"))
			r.settle(r.taken(m), deferred(time.Now().Add(time.Hour)))
			done := r.accept(r.message("b.example"))
			r.settle(r.taken(done), delivered())
			r.checkpoint()
			e := r.one(Filter{})
			r.close()
			tt.damage(t, r, e)
			got, err := Check(context.Background(), CheckOptions{JournalDir: "/journal", Dir: "/spool", FS: r.fs})
			if err != nil {
				t.Fatal(err)
			}
			if got.Index != tt.index {
				t.Errorf("index is %s, want %s", got.Index, tt.index)
			}
			found := false
			for _, p := range got.Problems {
				found = found || tt.want != "" && strings.Contains(p.String(), tt.want)
			}
			if got.OK() != (tt.want == "") || found != (tt.want != "") {
				t.Errorf("found %v, want %q", got.Problems, tt.want)
			}
			if got.Messages != 1 || got.Entries != 1 || got.Bodies != 2 || got.Records < 4 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// flip changes one bit of the first occurrence of text in the files of a directory.
func flip(t *testing.T, fs vfs.FS, dir, text string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := fs.OpenReadWrite(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, info.Size())
		n, _ := f.ReadAt(p, 0)
		if i := strings.Index(string(p[:n]), text); i >= 0 {
			if _, err := f.WriteAt([]byte{p[i] ^ 1}, int64(i)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			return
		}
		f.Close()
	}
	t.Fatal("no such text")
}
