package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

const testDir = "journal"

// disk is the files of a journal as bytes, to be spoilt at will.
type disk map[string][]byte

// fs returns a file system that holds the files, all synced.
func (d disk) fs(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll(testDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range d {
		f, err := fs.Create(fs.PathJoin(testDir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Clone(data)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return fs
}

// snapshot copies what fs holds at this moment, as a kill of the process leaves it.
func snapshot(t testing.TB, fs vfs.FS) disk {
	t.Helper()
	names, err := fs.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	d := make(disk)
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(testDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if d[name], err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return d
}

func (d disk) spoilt(name string, at int64) disk {
	c := make(disk)
	for n, data := range d {
		c[n] = data
		if n == name {
			c[n] = bytes.Clone(data)
			c[n][at] ^= 0x40
		}
	}
	return c
}

// written is a journal of ten batches, two records each, the first with a body, each synced by itself.
type written struct {
	unsealed, sealed disk
	records          []journal.Record // positions of all
	ends             []journal.Position
}

const (
	unsealedName = "0000000000000001.seg"
	testBatches  = 10
)

func write(t testing.TB) written {
	t.Helper()
	fs := vfs.NewMem()
	j, err := journal.Open(journal.Options{FS: fs, Dir: testDir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- j.Run(ctx) }()
	var w written
	for n := range testBatches {
		body := smtp.BodyOf(bytes.Repeat([]byte("line\r\n"), 20+n))
		b := &journal.Batch{Records: []journal.Record{
			{Kind: 1, Meta: fmt.Appendf(nil, "accepted %d", n), Body: body},
			{Kind: 2, Meta: fmt.Appendf(nil, "settled %d", n)},
		}}
		if err := j.Append(ctx, b); err != nil {
			t.Fatal(err)
		}
		w.records = append(w.records, b.Records...)
		w.ends = append(w.ends, b.Records[1].Position, j.End())
	}
	w.unsealed = snapshot(t, fs)
	cancel()
	if err := errors.Join(<-ended, j.Close()); err != nil {
		t.Fatal(err)
	}
	w.sealed = snapshot(t, fs)
	return w
}

func (w *written) sealedName(t testing.TB) string {
	t.Helper()
	for name := range w.sealed {
		if strings.Contains(name, "-") {
			return name
		}
	}
	t.Fatal("no sealed segment")
	return ""
}

// found opens d and returns the indices of the records it gives, read with their bodies, and the damage it tells of.
func (w *written) found(t testing.TB, d disk) (readable []int, damage []journal.Damage, fs *vfs.MemFS) {
	t.Helper()
	fs = d.fs(t)
	j, err := journal.Open(journal.Options{FS: fs, Dir: testDir})
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context(), false)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(w.records, func(r journal.Record) bool { return r.Position == e.Position })
		if i < 0 || !bytes.Equal(e.Meta, w.records[i].Meta) {
			t.Fatalf("an entry that was never written: %+v", e)
		}
		rec, err := j.Read(t.Context(), e.Position)
		if err != nil {
			if !errors.Is(err, journal.ErrDamaged) {
				t.Fatal(err)
			}
			continue
		}
		if rec.Body != nil {
			if rec.Body.Size() != w.records[i].Body.Size() {
				t.Fatalf("body of record %d has %d octets", i, rec.Body.Size())
			}
			rec.Body.Release()
		}
		readable = append(readable, i)
	}
	return readable, j.Damage(), fs
}

// all returns 0 to n-1 without the given ones.
func all(n int, without ...int) []int {
	var a []int
	for i := range n {
		if !slices.Contains(without, i) {
			a = append(a, i)
		}
	}
	return a
}

// TestSpoiltOctet spoils each octet of a sealed and of an unsealed segment, one at a time. Exactly the record with it
// is lost, and told of. In the last batch of an unsealed segment it cannot be told from a torn write: the batch is
// gone, without damage.
func TestSpoiltOctet(t *testing.T) {
	t.Parallel()
	w := write(t)
	last := 2 * testBatches
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	for name, c := range map[string]struct {
		disk disk
		file string
		torn int // first record that may be torn
	}{
		"sealed":   {w.sealed, w.sealedName(t), last},
		"unsealed": {w.unsealed, unsealedName, last - 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := 0
			for at := w.records[0].Position.Offset(); at < w.ends[last-1].Offset(); at += step {
				for i+1 < last && w.records[i+1].Position.Offset() <= at {
					i++
				}
				got, damage, fs := w.found(t, c.disk.spoilt(c.file, at))
				if i >= c.torn {
					if !slices.Equal(got, all(c.torn)) || len(damage) > 0 {
						t.Fatalf("octet %d of the last batch: %v, damage %+v", at, got, damage)
					}
					continue
				}
				if !slices.Equal(got, all(last, i)) {
					t.Fatalf("octet %d of record %d: found %v", at, i, got)
				}
				if len(damage) != 1 || damage[0].From != w.records[i].Position || damage[0].To != w.ends[i] {
					t.Fatalf("octet %d of record %d: damage %+v", at, i, damage)
				}
				// And again: nothing was repaired away.
				again, damage, _ := w.found(t, snapshot(t, fs))
				if !slices.Equal(again, got) || len(damage) != 1 {
					t.Fatalf("octet %d of record %d, opened again: found %v, damage %+v", at, i, again, damage)
				}
			}
		})
	}
}

// TestTornTail cuts an unsealed segment at each octet, and fills up with zeros or with old records as a spare's
// blocks hold them. What is left is a number of whole batches, and no damage.
func TestTornTail(t *testing.T) {
	t.Parallel()
	w := write(t)
	whole := w.unsealed[unsealedName]
	other := write(t).unsealed[unsealedName] // the same records under another salt
	first, end := w.records[0].Position.Offset(), w.ends[2*testBatches-1].Offset()
	for at := first; at <= end; at++ {
		torn := whole[:at:at]
		for name, data := range map[string][]byte{
			"nothing":     torn,
			"zeros":       append(bytes.Clone(torn), make([]byte, 5000)...),
			"old records": append(bytes.Clone(torn), other[at:]...),
		} {
			right := int64(0) // octets that are as they were, the old ones that happen to be the same included
			for right < int64(min(len(data), len(whole))) && data[right] == whole[right] {
				right++
			}
			batches := 0
			for batches < testBatches && w.ends[2*batches+1].Offset() <= right {
				batches++
			}
			got, damage, _ := w.found(t, disk{unsealedName: data})
			if !slices.Equal(got, all(2*batches)) || len(damage) > 0 {
				t.Fatalf("cut at %d, then %s: found %v, want %d batches, damage %+v", at, name, got, batches, damage)
			}
		}
	}
}

// TestLostBlocks is what a power cut may do to several batches of one sync: blocks in the middle are missing, those
// behind are there. As none was acknowledged, all from the first hole on goes.
func TestLostBlocks(t *testing.T) {
	t.Parallel()
	w := write(t)
	fs := w.unsealed.fs(t)
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir})
	pending := make(chan error, 3)
	for n := range 3 {
		j.Submit(&journal.Batch{
			Lazy: n < 2, Records: []journal.Record{{Kind: 3, Meta: bytes.Repeat([]byte{byte(n)}, 100)}},
			Done: func(_ *journal.Batch, err error) { pending <- err },
		})
	}
	for range 3 {
		if err := <-pending; err != nil {
			t.Fatal(err)
		}
	}
	d := snapshot(t, fs)
	name := "0000000000000002.seg"
	hole := bytes.Index(d[name], bytes.Repeat([]byte{1}, 100))
	got, damage, _ := w.found2(t, d.spoilt(name, int64(hole)), 1)
	if !slices.Equal(got, all(2*testBatches)) || len(damage) > 0 {
		t.Errorf("found %v, damage %+v", got, damage)
	}
}

// found2 is found with a number of further records at the end, which are not looked at.
func (w *written) found2(t testing.TB, d disk, more int) ([]int, []journal.Damage, *vfs.MemFS) {
	t.Helper()
	fs := d.fs(t)
	j, err := journal.Open(journal.Options{FS: fs, Dir: testDir})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []int
	for {
		e, err := r.Next(t.Context(), false)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(w.records, func(r journal.Record) bool { return r.Position == e.Position })
		if i < 0 {
			more--
			continue
		}
		got = append(got, i)
	}
	if more != 0 {
		t.Errorf("%d further records are missing", more)
	}
	return got, j.Damage(), fs
}

// TestHeader: either copy of a segment's header will do. With both gone nothing of the segment can be told, and all
// of it stays.
func TestHeader(t *testing.T) {
	t.Parallel()
	w := write(t)
	for name, c := range map[string]struct {
		disk disk
		file string
	}{"sealed": {w.sealed, w.sealedName(t)}, "unsealed": {w.unsealed, unsealedName}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := c.disk.spoilt(c.file, 45), c.disk.spoilt(c.file, 4096+45)
			for _, d := range []disk{one, two} {
				if got, damage, _ := w.found(t, d); len(got) != 2*testBatches || len(damage) > 0 {
					t.Errorf("one copy gone: found %v, damage %+v", got, damage)
				}
			}
			got, damage, fs := w.found(t, one.spoilt(c.file, 4096+45))
			if len(got) > 0 || len(damage) != 1 || damage[0].Extent != 1 {
				t.Errorf("both copies gone: found %v, damage %+v", got, damage)
			}
			if left := snapshot(t, fs)[w.sealedName(t)]; len(left) != len(c.disk[c.file]) {
				t.Errorf("%d octets are left of %d", len(left), len(c.disk[c.file]))
			}
		})
	}
}

// TestShortFile: a sealed segment that has lost its end.
func TestShortFile(t *testing.T) {
	t.Parallel()
	w := write(t)
	name := w.sealedName(t)
	cut := w.records[9].Position.Offset() + 3
	got, damage, _ := w.found(t, disk{name: w.sealed[name][:cut]})
	if !slices.Equal(got, all(9)) || len(damage) == 0 {
		t.Errorf("found %v, damage %+v", got, damage)
	}
}

// TestForged: a message that holds the bytes of a segment, even of this very one, brings no record into being when
// what is before it is damaged.
func TestForged(t *testing.T) {
	t.Parallel()
	w := write(t)
	fs := w.sealed.fs(t)
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir})
	segment := w.sealed[w.sealedName(t)]
	b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: []byte("attack"), Body: smtp.BodyOf(segment)}}}
	if err := j.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	after := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: []byte("after")}}}
	if err := j.Append(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	d := snapshot(t, fs).spoilt("0000000000000002.seg", b.Records[0].Position.Offset()+10)
	got, damage, _ := w.found2(t, d, 1)
	if !slices.Equal(got, all(2*testBatches)) || len(damage) != 1 || damage[0].To != after.Records[0].Position {
		t.Errorf("found %v, damage %+v", got, damage)
	}
}

// TestDamagedKept: removing a damaged extent takes it out of the journal, not off the disk.
func TestDamagedKept(t *testing.T) {
	t.Parallel()
	w := write(t)
	name := w.sealedName(t)
	fs := w.sealed.spoilt(name, w.records[3].Position.Offset()).fs(t)
	j := openRunning(t, journal.Options{FS: fs, Dir: testDir})
	if _, err := j.Read(t.Context(), w.records[3].Position); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("reading: %v", err)
	}
	r, err := j.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = r.Next(t.Context(), false)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := j.Remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	kept := snapshot(t, fs)[strings.Replace(name, ".seg", ".damaged", 1)]
	if !bytes.Equal(kept[:100], w.sealed[name][:100]) {
		t.Error("the damaged file is gone")
	}
	if n := len(j.Extents()); n != 1 {
		t.Errorf("%d extents", n)
	}
}
