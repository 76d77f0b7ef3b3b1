package smtpserver

import (
	"bytes"
	"strings"
	"testing"
)

// reference says, slowly and by the letter, what a scanner must find in the octets behind 354: where the data ends (RFC
// 5321, 4.1.1.4), what remains after transparency (4.5.2), and whether the content is in order.
func reference(wire string, l Limits) (content string, used int, done, flawed bool) {
	end := strings.Index("\r\n"+wire, "\r\n.\r\n")
	if end < 0 {
		return "", len(wire), false, false
	}
	raw := wire[:end]
	var b strings.Builder
	for line := range strings.SplitAfterSeq(raw, "\r\n") {
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	content = b.String()
	return content, end + len(".\r\n"), true, referenceFlaw(content, l)
}

func referenceFlaw(content string, l Limits) bool {
	flawed := strings.ContainsAny(strings.ReplaceAll(content, "\r\n", ""), "\r\n") ||
		strings.ContainsRune(content, 0) || int64(len(content)) > l.MessageBytes
	for line := range strings.SplitSeq(content, "\r\n") {
		flawed = flawed || len(line) > l.TextLine
	}
	header := len(content)
	if i := strings.Index("\r\n"+content, "\r\n\r\n"); i >= 0 {
		header = i + len("\r\n")
	}
	return flawed || header > l.HeaderBytes
}

// referenceNormal is the content of wire for a listener that normalizes. The end is found in the octets as they came.
func referenceNormal(wire string) (content string, used int, done bool) {
	end := strings.Index("\r\n"+wire, "\r\n.\r\n")
	if end < 0 {
		return "", len(wire), false
	}
	var b strings.Builder
	for line := range strings.SplitAfterSeq(wire[:end], "\n") {
		if line == "" {
			continue
		}
		text := strings.NewReplacer("\r", "", "\n", "").Replace(line)
		if strings.HasPrefix(line, ".") && text != "." {
			text = text[1:]
		}
		b.WriteString(text + "\r\n")
	}
	return b.String(), end + len(".\r\n"), true
}

// cutter yields text in pieces whose sizes cuts gives, and the rest at once.
func cutter(text string, cuts []byte, yield func(piece []byte) bool) {
	for len(text) > 0 {
		n := len(text)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[0]%32))
			cuts = cuts[1:]
		}
		if !yield([]byte(text[:n])) {
			return
		}
		text = text[n:]
	}
}

// scanAll feeds wire to a scanner in pieces, as the session does.
func scanAll(wire string, cuts []byte, l *Limits) (content string, used int, done bool, c scanner) {
	c = scanner{stuffed: true, limits: l}
	var b strings.Builder
	cutter(wire, cuts, func(p []byte) bool {
		var kept, n int
		kept, n, done = c.scan(p)
		b.Write(p[:kept])
		used += n
		return !done
	})
	return b.String(), used, done, c
}

func normalizeAll(wire string, cuts []byte, l *Limits) (content string, used int, done bool, c scanner) {
	c = scanner{stuffed: true, limits: l}
	var z normalizer
	var b strings.Builder
	cutter(wire, cuts, func(p []byte) bool {
		for len(p) > 0 && !done {
			dst := make([]byte, 16)
			wrote, read, ended := z.next(dst, p, true)
			var kept, n int
			kept, n, done = c.scan(dst[:wrote])
			if done != ended || n != wrote {
				panic("normalizer and scanner disagree on the end of data")
			}
			b.Write(dst[:kept])
			p = p[read:]
			used += read
		}
		return !done
	})
	return b.String(), used, done, c
}

func checkScan(t *testing.T, wire string, cuts []byte, l Limits) {
	t.Helper()
	want, wantUsed, wantDone, wantFlaw := reference(wire, l)
	got, used, done, c := scanAll(wire, cuts, &l)
	if done != wantDone || used != wantUsed {
		t.Fatalf("%q cut %v: done %v after %d, want %v after %d", wire, cuts, done, used, wantDone, wantUsed)
	}
	if done {
		if (c.flaw != flawNone) != wantFlaw {
			t.Fatalf("%q cut %v: flaw %s, want flawed %v", wire, cuts, flaws[c.flaw].word, wantFlaw)
		}
		if c.flaw == flawNone {
			checkContent(t, wire, cuts, got, want, &c)
		}
	}
	want, wantUsed, wantDone = referenceNormal(wire)
	got, used, done, c = normalizeAll(wire, cuts, &l)
	if done != wantDone || used != wantUsed {
		t.Fatalf("normalizing %q cut %v: done %v after %d, want %v after %d",
			wire, cuts, done, used, wantDone, wantUsed)
	}
	if !done {
		return
	}
	if wantFlaw := referenceFlaw(want, l); (c.flaw != flawNone) != wantFlaw {
		t.Fatalf("normalizing %q cut %v: flaw %s, want flawed %v", wire, cuts, flaws[c.flaw].word, wantFlaw)
	}
	if c.flaw == flawNone {
		checkContent(t, wire, cuts, got, want, &c)
	}
}

func checkContent(t *testing.T, wire string, cuts []byte, got, want string, c *scanner) {
	t.Helper()
	if got != want || c.size != int64(len(want)) {
		t.Fatalf("%q cut %v: content %q of %d, want %q", wire, cuts, got, c.size, want)
	}
	if eight := strings.IndexFunc(want, func(r rune) bool { return r >= 0x80 }) >= 0; c.eightBit != eight {
		t.Fatalf("%q cut %v: eightBit %v", wire, cuts, c.eightBit)
	}
	if dot := strings.Contains("\r\n"+want, "\r\n."); c.dotLine != dot {
		t.Fatalf("%q cut %v: dotLine %v", wire, cuts, c.dotLine)
	}
	if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n\x00") {
		t.Fatalf("%q: unclean content %q", wire, got)
	}
}

// TestScanShort compares with the reference on every text of up to six octets of the five that matter, cut at every
// place.
func TestScanShort(t *testing.T) {
	t.Parallel()
	const octets = "\r\n.a\x00"
	l := Limits{TextLine: 3, HeaderBytes: 5, MessageBytes: 6}
	longest := 6
	if testing.Short() {
		longest = 5
	}
	text := make([]byte, 0, longest+5)
	var grow func(n int)
	grow = func(n int) {
		for _, end := range []string{"", "\r\n.\r\n"} {
			wire := string(text) + end
			checkScan(t, wire, nil, l)
			checkScan(t, wire, bytes.Repeat([]byte{0}, len(wire)), l)
			checkScan(t, wire, []byte{byte(len(wire) / 2)}, l)
		}
		if n == 0 {
			return
		}
		for i := range len(octets) {
			text = append(text, octets[i])
			grow(n - 1)
			text = text[:len(text)-1]
		}
	}
	grow(longest)
}

// TestScanLimits stands on both sides of each limit (Z-2, Z-3).
func TestScanLimits(t *testing.T) {
	t.Parallel()
	l := Limits{}.withDefaults()
	l.TextLine, l.HeaderBytes, l.MessageBytes = 998, 2000, 4000
	line := strings.Repeat("x", 998) + "\r\n"
	tests := []struct {
		name string
		in   string
		want flaw
	}{
		{"line 998", "\r\n" + line, flawNone},
		{"line 998 behind a dot of transparency", "\r\n." + "." + line[1:], flawNone},
		{"line 999", "\r\nx" + line, flawLine},
		{"header 2,000", line[:1000] + strings.Repeat("y", 996) + "\r\n\r\n", flawNone},
		{"header 2,001", line[:1000] + strings.Repeat("y", 997) + "\r\n\r\n", flawHeader},
		{"header without end", line + line + "x\r\n", flawHeader},
		{"header without end, 2,000", line + line, flawNone},
		{"size 4,000", "\r\n" + line + line + line + line[:996] + "\r\n", flawNone},
		{"size 4,001", "\r\n" + line + line + line + line[:997] + "\r\n", flawSize},
		{"empty", "", flawNone},
	}
	for _, tt := range tests {
		for _, cuts := range [][]byte{nil, bytes.Repeat([]byte{0}, 5000), bytes.Repeat([]byte{30, 1}, 5000)} {
			_, _, done, c := scanAll(tt.in+".\r\n", cuts, &l)
			if !done || c.flaw != tt.want {
				t.Errorf("%s: done %v, flaw %s, want %s", tt.name, done, flaws[c.flaw].word, flaws[tt.want].word)
			}
			checkScan(t, tt.in+".\r\n", cuts, l)
		}
	}
}

// TestScanLongLine sees the limit of a line while it still comes, without waiting for its end.
func TestScanLongLine(t *testing.T) {
	t.Parallel()
	l := Limits{}.withDefaults()
	c := scanner{stuffed: true, limits: &l}
	p := bytes.Repeat([]byte("x"), 1<<10)
	n := 0
	for ; c.flaw == flawNone; n += len(p) {
		c.scan(p)
	}
	if c.flaw != flawLine || n > l.TextLine+2*len(p) {
		t.Errorf("flaw %s after %d octets", flaws[c.flaw].word, n)
	}
}

// TestScanChunks compares BDAT content, in which dots mean nothing.
func TestScanChunks(t *testing.T) {
	t.Parallel()
	l := Limits{}.withDefaults()
	tests := []struct {
		in      string
		want    flaw
		unended bool
		dot     bool
	}{
		{"", flawNone, false, false},
		{"a\r\n", flawNone, false, false},
		{"a\r\n.\r\n..b\r\n", flawNone, false, true},
		{".", flawNone, true, true},
		{"a", flawNone, true, false},
		{"a\r", flawBareCR, false, false},
		{"a\nb", flawBareLF, false, false},
		{"a\rb\r\n", flawBareCR, false, false},
		{"\r\r\n", flawBareCR, false, false},
		{"a\x00", flawNUL, false, false},
	}
	for _, tt := range tests {
		for cut := range len(tt.in) + 1 {
			c := scanner{limits: &l}
			var got []byte
			for _, piece := range []string{tt.in[:cut], tt.in[cut:]} {
				p := []byte(piece)
				kept, used, done := c.scan(p)
				if done || used != len(p) {
					t.Fatalf("%q: data ended in a chunk", tt.in)
				}
				got = append(got, p[:kept]...)
			}
			unended := c.finish()
			if c.flaw != tt.want || unended != tt.unended || c.dotLine != tt.dot && c.flaw == flawNone {
				t.Errorf("%q cut at %d: flaw %s, unended %v, dot line %v",
					tt.in, cut, flaws[c.flaw].word, unended, c.dotLine)
			}
			if c.flaw == flawNone && string(got) != tt.in {
				t.Errorf("%q cut at %d: %q", tt.in, cut, got)
			}
		}
	}
}

// TestScanManyDots is linear: removing the dot of each line must not move all that follows each time.
func TestScanManyDots(t *testing.T) {
	t.Parallel()
	l := Limits{}.withDefaults()
	wire := "\r\n" + strings.Repeat("..\r\n", 1<<18) + ".\r\n"
	got, _, done, c := scanAll(wire, nil, &l)
	if !done || c.flaw != flawNone || got != "\r\n"+strings.Repeat(".\r\n", 1<<18) {
		t.Errorf("done %v, flaw %s, %d octets", done, flaws[c.flaw].word, len(got))
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nMAIL"), []byte{1, 2, 3})
	f.Add([]byte("..a\r\n.b\r\n\r\n.\n.\r\n.\r\n"), []byte{})
	f.Add([]byte("\n.\r\n\r.\r\n\r\n.\r\r\n.\r\n"), []byte{0, 0, 0, 0})
	f.Add([]byte(".\r\n"), []byte{0})
	f.Add([]byte("ü\r\n\x00\r\n.\r\n"), []byte{4})
	f.Fuzz(func(t *testing.T, wire, cuts []byte) {
		checkScan(t, string(wire), cuts, Limits{TextLine: 20, HeaderBytes: 40, MessageBytes: 60})
	})
}

func FuzzChunkArguments(f *testing.F) {
	for _, s := range []string{
		"10", "10 LAST", "0 last", "-1", "1e3", "0x10", "", "10 LASTT", "99999999999999999999", "1  LAST", "1 LAST ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, args []byte) {
		n, last, ok := parseChunk(args)
		words := strings.Fields(string(args))
		plain := len(words) > 0 && strings.Trim(words[0], "0123456789") == "" &&
			(len(words) == 1 || len(words) == 2 && strings.EqualFold(words[1], "LAST"))
		if ok && (!plain || n < 0 || n > maxInput || last != (len(words) == 2)) {
			t.Fatalf("%q: %d, last %v", args, n, last)
		}
	})
}
