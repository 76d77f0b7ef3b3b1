package journal

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// recent keeps the metas of the latest records in memory, so that a reader that follows the journal closely, as the
// event log does, costs no reads of the file. It is two pages: while one fills, the other holds what came before.
//
// What is in it has been written, but is not durable before the journal's end says so; readers look only below that.
type recent struct {
	wanted atomic.Bool // there was a reader: until then nothing is kept

	mu    sync.Mutex
	pages [2]page // pages[n%2] is number n
	last  uint64  // number of the page that fills
}

// page is records one behind the other, in the order of their positions.
type page struct {
	number uint64
	data   []byte
}

const (
	pageSize    = 1 << 20
	recentHead  = 20       // octets before the meta of a record in a page
	recentChunk = 64 << 10 // octets that a reader takes at a time
)

// put keeps records that have been written.
func (r *recent) put(records []Record) {
	if !r.wanted.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range records {
		rec := &records[i]
		meta := rec.wire.meta
		if recentHead+len(meta) > recentChunk {
			r.forget() // readers find it in the file, and what follows it here
			continue
		}
		p := &r.pages[r.last%2]
		if len(p.data)+recentHead+len(meta) > pageSize || p.data == nil {
			p = r.turn()
		}
		le := binary.LittleEndian
		p.data = le.AppendUint64(p.data, uint64(rec.Position))
		p.data = le.AppendUint32(p.data, uint32(len(meta)))
		p.data = le.AppendUint32(p.data, rec.wire.bodySize)
		p.data = append(p.data, byte(rec.Kind), rec.wire.flags, 0, 0)
		p.data = append(p.data, meta...)
	}
}

// turn begins the next page in the memory of the one before the last.
func (r *recent) turn() *page {
	r.last++
	p := &r.pages[r.last%2]
	p.number = r.last
	if p.data == nil {
		p.data = make([]byte, 0, pageSize)
	}
	p.data = p.data[:0]
	return p
}

// forget empties both pages: records in them are in a row, with none left out.
func (r *recent) forget() {
	r.turn()
	r.turn()
}

// place is where a reader goes on in the pages.
type place struct {
	page uint64
	at   int
}

// take returns whole records from the one at p on, copied to dst, and notes in *where what follows them. It returns
// nothing if p is not in memory.
func (r *recent) take(dst []byte, p Position, where *place) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if where.page+1 == r.last && where.at == len(r.pages[where.page%2].data) {
		*where = place{page: r.last}
	}
	if !r.stands(p, *where) && !r.search(p, where) {
		return dst[:0]
	}
	data := r.pages[where.page%2].data[where.at:]
	n := 0
	for n < len(data) {
		size := recentHead + int(binary.LittleEndian.Uint32(data[n+8:]))
		if n+size > recentChunk {
			break
		}
		n += size
	}
	where.at += n
	return append(dst[:0], data[:n]...)
}

// stands reports whether the record at p is at where.
func (r *recent) stands(p Position, where place) bool {
	pg := &r.pages[where.page%2]
	return pg.number == where.page && where.at < len(pg.data) && positionIn(pg.data[where.at:]) == p
}

// search finds the record at p. A reader needs it when it has caught up with the pages, or fallen out of them.
func (r *recent) search(p Position, where *place) bool {
	for i := range r.pages {
		pg := &r.pages[i]
		if len(pg.data) == 0 || positionIn(pg.data) > p {
			continue
		}
		for at := 0; at < len(pg.data); at += recentHead + int(binary.LittleEndian.Uint32(pg.data[at+8:])) {
			switch found := positionIn(pg.data[at:]); {
			case found == p:
				*where = place{page: pg.number, at: at}
				return true
			case found > p:
				return false
			}
		}
	}
	return false
}

func positionIn(b []byte) Position { return Position(binary.LittleEndian.Uint64(b)) }

// follower is a reader's part of recent: a chunk of records, copied.
type follower struct {
	where place
	chunk []byte // memory of rest
	rest  []byte
}

// next returns the record at p if it is in memory.
func (f *follower) next(r *recent, p Position) (Entry, bool) {
	if len(f.rest) == 0 || positionIn(f.rest) != p {
		if f.chunk == nil {
			f.chunk = make([]byte, 0, recentChunk)
		}
		f.chunk = r.take(f.chunk, p, &f.where)
		if f.rest = f.chunk; len(f.rest) == 0 {
			return Entry{}, false
		}
	}
	b, le := f.rest, binary.LittleEndian
	end := recentHead + int(le.Uint32(b[8:]))
	body := int64(le.Uint32(b[12:]))
	e := Entry{
		Position: p, Next: p + Position(recordHeaderSize+int64(end-recentHead)+body), Kind: Kind(b[16]),
		Meta: b[recentHead:end:end], BodySize: body, HasBody: b[17]&flagBody != 0, sealed: b[17]&flagSealed != 0,
	}
	f.rest = b[end:]
	return e, true
}
