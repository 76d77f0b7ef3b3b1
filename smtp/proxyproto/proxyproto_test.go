package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

const sig = signature

func v2(command, family byte, n int, rest string) string {
	return sig + string([]byte{command, family, byte(n >> 8), byte(n)}) + rest
}

const (
	four = "\xc0\x00\x02\x01\xc6\x33\x64\x01\x15\xb3\x00\x19" // 192.0.2.1:5555 to 198.51.100.1:25
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x15\xb3\x00\x19"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x01\x15\xb3\x00\x19"
)

// TestPX3 is the table of headers, good and broken.
func TestPX3(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{ // "source destination", "local", or the error
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "192.0.2.1:5555 198.51.100.1:25"},
		{"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535 255.255.255.255:65535"},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 5555 25\r\n", "[2001:db8::1]:5555 [2001:db8::2]:25"},
		{"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		{"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 5555 25\r\n", "192.0.2.1:5555 198.51.100.1:25"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 0 0\r\n", "192.0.2.1:0 198.51.100.1:0"},
		{"PROXY UNKNOWN\r\n", "local"},
		{"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n", "local"},

		{"PROXY TCP4 999.1.1.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.01 198.51.100.1 5555 25\r\n", "invalid"}, // leading zero
		{"PROXY TCP4 192.0.2.1 198.51.100.1 05555 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 +25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 -1\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 0x19\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25 \r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25 26\r\n", "invalid"},
		{"PROXY TCP4  192.0.2.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP4\t192.0.2.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP4 2001:db8::1 2001:db8::2 5555 25\r\n", "invalid"},
		{"PROXY TCP6 192.0.2.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP6 fe80::1%eth0 fe80::2 5555 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 2001:db8::2 5555 25\r\n", "invalid"},
		{"PROXY tcp4 192.0.2.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY UDP4 192.0.2.1 198.51.100.1 5555 25\r\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\rx\n", "invalid"},
		{"PROXY TCP4 192.0.2.1 198.51.100.1\n 5555 25\r\n", "invalid"},
		{"PROXY UNKNOWNX\r\n", "invalid"},
		{"PROXY  \r\n       ", "invalid"},
		{"PROXY " + strings.Repeat("x", 102), "invalid"},               // 108 octets without CRLF
		{"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "local"}, // 107 with it
		{"PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "invalid"},

		{"proxy TCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "none"},
		{"PROXY\tTCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "none"},
		{" PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "none"},
		{"EHLO client.example\r\n", "none"},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "none"},
		{"\r\n\r\n\x00\r\nQUIX\n\x21\x11\x00\x0c" + four, "none"},
		{"\r\n\r\n\x00\nQUIT\n\x21\x11\x00\x0c" + four, "none"},

		{v2(0x21, 0x11, 12, four), "192.0.2.1:5555 198.51.100.1:25"},
		{v2(0x21, 0x21, 36, six), "[2001:db8::1]:5555 [2001:db8::2]:25"},
		{v2(0x21, 0x21, 36, mapped), "192.0.2.1:5555 198.51.100.1:25"},
		{v2(0x21, 0x11, 16, four+"\x04\x00\x01x"), "192.0.2.1:5555 198.51.100.1:25"},
		{v2(0x21, 0x11, 15, four+"\x04\x00\x00"), "192.0.2.1:5555 198.51.100.1:25"},
		{v2(0x20, 0x00, 0, ""), "local"},
		{v2(0x20, 0x11, 12, four), "local"},
		{v2(0x20, 0xff, 3, "xyz"), "local"}, // what follows LOCAL is ignored
		{v2(0x21, 0x00, 0, ""), "local"},
		{v2(0x21, 0x00, 3, "\x04\x00\x00"), "local"},

		{v2(0x11, 0x11, 12, four), "invalid"}, // version 1 in binary
		{v2(0x31, 0x11, 12, four), "invalid"},
		{v2(0x22, 0x11, 12, four), "invalid"},
		{v2(0x2f, 0x11, 12, four), "invalid"},
		{v2(0x21, 0x12, 12, four), "invalid"}, // UDP over IPv4
		{v2(0x21, 0x22, 36, six), "invalid"},
		{v2(0x21, 0x31, 216, strings.Repeat("\x00", 216)), "invalid"}, // AF_UNIX
		{v2(0x21, 0x32, 216, strings.Repeat("\x00", 216)), "invalid"},
		{v2(0x21, 0x10, 12, four), "invalid"},
		{v2(0x21, 0x41, 12, four), "invalid"},
		{v2(0x21, 0x11, 11, four[:11]), "invalid"},
		{v2(0x21, 0x21, 12, four), "invalid"},
		{v2(0x21, 0x11, 0, ""), "invalid"},
		{v2(0x21, 0x11, 13, four+"\x04"), "invalid"},
		{v2(0x21, 0x11, 15, four+"\x04\x00\x01"), "invalid"}, // TLV overrun
		{v2(0x21, 0x11, 15, four+"\x04\xff\xff"), "invalid"},
		{v2(0x21, 0x00, 2, "\x04\x00"), "invalid"},
		{v2(0x21, 0x11, 65535, four), "invalid"},
		{v2(0x20, 0x00, 65535, ""), "invalid"},
		{v2(0x21, 0x11, 4097, four), "invalid"},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in + "tail"), "octets": iotest.OneByteReader(strings.NewReader(tt.in + "tail")),
			"halves": iotest.HalfReader(strings.NewReader(tt.in + "tail")), "with the error": iotest.DataErrReader(strings.NewReader(tt.in + "tail")),
		} {
			h, err := Read(r)
			if got := show(h, err); got != tt.want {
				t.Errorf("%q, %s: %s (%v), want %s", tt.in, name, got, err, tt.want)
			}
			if err == nil { // not one octet more
				if rest, _ := io.ReadAll(r); string(rest) != "tail" {
					t.Errorf("%q, %s: %q is left", tt.in, name, rest)
				}
			}
		}
	}
}

func show(h Header, err error) string {
	switch {
	case errors.Is(err, ErrNone):
		return "none"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "short"
	case err != nil:
		return "other"
	case h.Local:
		return "local"
	}
	return h.Source.String() + " " + h.Destination.String()
}

// TestPX3Short cuts good headers at every octet.
func TestPX3Short(t *testing.T) {
	t.Parallel()
	for _, header := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x11, 16, four+"\x04\x00\x01x"), v2(0x21, 0x21, 36, six),
		v2(0x20, 0, 0, ""),
	} {
		for n := range header {
			if got := show(Read(strings.NewReader(header[:n]))); got != "short" {
				t.Errorf("%q: %s", header[:n], got)
			}
			if n > 0 && !Begins([]byte(header[:n])) {
				t.Errorf("%q does not begin a header", header[:n])
			}
		}
	}
	if Begins(nil) || Begins([]byte("EHLO")) || Begins([]byte("\r\nEHLO")) {
		t.Error("begins a header")
	}
	if _, err := Read(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// FuzzRead holds that what is read can be written and read again, and that no more than a header is taken.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.1 5555 25\r\n", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n", v2(0x21, 0x11, 12, four),
		v2(0x21, 0x21, 36, six), v2(0x21, 0x11, 16, four+"\x04\x00\x01x"), v2(0x20, 0, 0, ""), v2(0x21, 0x21, 36, mapped),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		h, err := Read(r)
		if taken := len(data) - r.Len(); taken > prefixV2+maxV2 {
			t.Fatalf("%d octets taken", taken)
		}
		if err != nil {
			return
		}
		if !h.Local && (h.Source.Addr().Is4In6() || !h.Source.IsValid() || !h.Destination.IsValid()) {
			t.Fatalf("%+v", h)
		}
		if !h.Local && h.Source.Addr().Is4() != h.Destination.Addr().Is4() {
			return // one of the two was mapped; there is no header for such
		}
		for _, wire := range [][]byte{h.AppendV1(nil), h.AppendV2(nil)} {
			back, err := Read(bytes.NewReader(wire))
			back.Version = h.Version
			if err != nil || back != h {
				t.Fatalf("%+v came back as %+v, %v", h, back, err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	h := Header{Source: netip.MustParseAddrPort("192.0.2.1:5555"), Destination: netip.MustParseAddrPort("198.51.100.1:25")}
	for name, wire := range map[string][]byte{"v1": h.AppendV1(nil), "v2": h.AppendV2(nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(wire)
				if _, err := Read(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
