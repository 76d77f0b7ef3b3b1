package outbox

import (
	"bytes"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
)

// someEvents returns at least size octets of events that differ as real ones do.
func someEvents(size int) []byte {
	var (
		tell teller
		out  []byte
	)
	for i := 0; len(out) < size; i++ {
		m := testMessage(i*7919, 1)
		m.Session, m.Recipients[0].Local = m.ID.String()[8:], m.ID.String()[10:]
		m.MessageID = "<" + m.ID.String() + "@example.com>"
		for _, r := range []spool.Record{accepted(m), attempted(m, time.Duration(i*37)*time.Millisecond, delivered)} {
			out = tell.append(out, journal.Position(i*11000), &r, 0)
		}
	}
	return out
}

// BenchmarkCompress is what closed files cost in the background, by compression.
func BenchmarkCompress(b *testing.B) {
	data := someEvents(8 << 20)
	for _, how := range []Compression{Gzip, Zstd} {
		b.Run(string(how), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				if err := squeeze(b.Context(), &out, bytes.NewReader(data), how); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data))/float64(out.Len()), "ratio")
		})
	}
}

// BenchmarkSearch is what looking through closed files costs.
func BenchmarkSearch(b *testing.B) {
	data := someEvents(8 << 20)
	for _, how := range []Compression{None, Gzip, Zstd} {
		b.Run(string(how), func(b *testing.B) {
			packed := bytes.NewBuffer(data)
			if how != None {
				packed = new(bytes.Buffer)
				if err := squeeze(b.Context(), packed, bytes.NewReader(data), how); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, done, err := reader(bytes.NewReader(packed.Bytes()), how)
				if err != nil {
					b.Fatal(err)
				}
				s := search{needle: []byte(`"message":"00000000000000000000"`), limit: 1}
				if err := s.scan(r); err != nil {
					b.Fatal(err)
				}
				done()
			}
		})
	}
}
