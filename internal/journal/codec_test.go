package journal

import (
	"bytes"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

func TestRecordHeader(t *testing.T) {
	t.Parallel()
	want := recordHeader{
		kind: 7, flags: flagBody | flagDotLine, index: 2, count: 3, metaSize: 300, bodySize: 10_000,
		durable: 1<<32 | 9000, metaSum: 1, bodySum: 2,
	}
	var b [recordHeaderSize]byte
	const salt, p = 12345, 1<<32 | 9100
	want.encode(b[:], salt, p)
	var got recordHeader
	if !got.decode(b[:], salt, p) || !cmp.Equal(got, want, cmp.AllowUnexported(recordHeader{})) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.decode(b[:], salt+1, p) || got.decode(b[:], salt, p+1) || got.decode(b[:recordHeaderSize-1], salt, p) {
		t.Error("taken with another salt, at another position, or short")
	}
	for i := range b {
		b[i] ^= 1
		if got.decode(b[:], salt, p) {
			t.Errorf("taken with octet %d spoilt", i)
		}
		b[i] ^= 1
	}
}

func TestSegmentHeader(t *testing.T) {
	t.Parallel()
	want := segmentHeader{id: 9, epoch: 4, before: 8<<32 | 12345, salt: 77, created: 1_700_000_000_000_000_000,
		owner: "node-1"}
	b := want.encode()
	got, err := decodeHeader(b, 9)
	if err != nil || got != want {
		t.Errorf("got %+v, error %v", got, err)
	}
	if _, err := decodeHeader(b, 10); err == nil {
		t.Error("taken for another segment's")
	}
	if _, err := decodeHeader(b[:headerUsed-1], 9); err == nil {
		t.Error("taken though short")
	}
}

func TestSegmentName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		id   ExtentID
		end  int64
		ok   bool
	}{
		{activeName(1), 1, 0, true},
		{sealedName(0xabc, 64<<20), 0xabc, 64 << 20, true},
		{"0000000000000001.seg", 1, 0, true},
		{"0000000000000001-00002000.seg", 1, headerSize, true},
		{"0000000000000000.seg", 0, 0, false},
		{"0000000100000000.seg", 0, 0, false},
		{"0000000000000001-00001fff.seg", 0, 0, false},
		{"000000000000000A.seg", 0, 0, false},
		{"+000000000000001.seg", 0, 0, false},
		{"1.seg", 0, 0, false},
		{"0000000000000001-.seg", 0, 0, false},
		{"0000000000000001.tmp", 0, 0, false},
		{"LOCK", 0, 0, false},
		{"", 0, 0, false},
	} {
		id, end, ok := parseSegmentName(c.name)
		if id != c.id || end != c.end || ok != c.ok {
			t.Errorf("%q: %d %d %v, want %d %d %v", c.name, id, end, ok, c.id, c.end, c.ok)
		}
	}
}

func FuzzSegmentHeader(f *testing.F) {
	h := segmentHeader{id: 1, owner: "x"}
	f.Add(h.encode()[:headerUsed])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b, 1)
		if err != nil {
			return
		}
		if again, err := decodeHeader(h.encode(), 1); err != nil || again != h {
			t.Errorf("%+v became %+v, error %v", h, again, err)
		}
	})
}

// FuzzRecover opens a journal whose last segment holds these octets. Whatever they are, it opens, reads to its end,
// can be written to, and opens again to the same records.
func FuzzRecover(f *testing.F) {
	header := segmentHeader{id: 1, epoch: 1, salt: 42}
	batch := func(off int64, durable Position, metas ...string) (b []byte) {
		for i, m := range metas {
			p := position(1, off+int64(len(b)))
			h := recordHeader{index: uint32(i), count: uint32(len(metas)), metaSize: uint32(len(m)),
				durable: durable, metaSum: sum(m), flags: flagBody, bodySize: 2, bodySum: sum("\r\n")}
			var head [recordHeaderSize]byte
			h.encode(head[:], header.salt, p)
			b = append(append(append(b, head[:]...), m...), "\r\n"...)
		}
		return b
	}
	one := batch(headerSize, position(1, headerSize), "a", "bb")
	two := batch(headerSize+int64(len(one)), position(1, headerSize+int64(len(one))), "ccc")
	f.Add(append(bytes.Clone(one), two...))
	f.Add(append(make([]byte, len(one)), two...))
	f.Add(one[:len(one)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("j", 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := fs.Create("j/"+activeName(1), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(append(header.encode(), data...)); err != nil {
			t.Fatal(err)
		}
		file.Close()
		first := fuzzRead(t, fs)
		if again := fuzzRead(t, fs); !cmp.Equal(first, again) {
			t.Errorf("read %v, then %v", first, again)
		}
	})
}

func sum(s string) uint32 {
	b := Batch{Records: []Record{{Meta: []byte(s)}}}
	_ = b.prepare(nil)
	return b.Records[0].wire.metaSum
}

func fuzzRead(t *testing.T, fs vfs.FS) (positions []Position) {
	t.Helper()
	l, err := Open(Options{FS: fs, Dir: "j"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := l.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context(), false)
		if err == io.EOF {
			return positions
		}
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, e.Position)
		if rec, err := l.Read(t.Context(), e.Position); err == nil && rec.Body != nil {
			rec.Body.Release()
		}
	}
}
