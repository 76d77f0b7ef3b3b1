package message

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// wire turns the line ends of a literal to CRLF.
func wire(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func TestHeader(t *testing.T) {
	t.Parallel()
	p := wire("Received: by a\n\twith ESMTP;\n now\nReceived: by b\nFROM : Ann\nX-Empty:\nSubject:  two  words \n\nbody: is none\n")
	h, err := ParseHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	if string(p[h.Len():]) != "body: is none\r\n" || !h.Complete() || !bytes.HasSuffix(h.Bytes(), []byte("words \r\n")) {
		t.Errorf("the header ends at %d of %d", h.Len(), len(p))
	}
	for name, want := range map[string]string{
		"received": "by a\r\n\twith ESMTP;\r\n now", "From": "Ann", "x-empty": "", "SUBJECT": "two  words",
	} {
		if got, ok := h.Get(name); !ok || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
	if _, ok := h.Get("body"); ok || h.Count("Received") != 2 || h.Count("To") != 0 {
		t.Error("fields are found that are not there")
	}
	var names []string
	for f := range h.Fields() {
		names = append(names, string(f.Name))
		if !bytes.Equal(p[f.Offset:f.Offset+len(f.Raw)], f.Raw) {
			t.Errorf("%s is not at %d", f.Name, f.Offset)
		}
	}
	if want := []string{"Received", "Received", "FROM", "X-Empty", "Subject"}; !slices.Equal(names, want) {
		t.Errorf("fields %q", names)
	}
	var received []string
	for f := range h.All("RECEIVED") {
		received = append(received, string(AppendUnfolded(nil, f.Value)))
	}
	if want := []string{"by a\twith ESMTP; now", "by b"}; !slices.Equal(received, want) {
		t.Errorf("received %q", received)
	}
}

func TestHeaderEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in       string
		len      int
		complete bool
		bad      int // offset of the line that is no field, -1 if there is none
	}{
		{"", 0, false, -1},
		{"\r\n", 2, true, -1},
		{"\nbody", 1, true, -1},
		{"A: b", 4, false, -1},
		{"A: b\r\n", 6, false, -1},
		{"A: b\r\n\r", 7, false, 6},
		{"A: b\r\n\r\nbody", 8, true, -1},
		{"A: b\n\nbody", 6, true, -1},
		{"A: b\r\nno field\r\nC: d\r\n\r\n", 24, true, 6},
		{"A: b\r\n: no name\r\n\r\n", 19, true, 6},
		{"A: b\r\nno name: x\r\n\r\n", 20, true, 6},
		{"A: b\r\nn\xe4me: x\r\n\r\n", 17, true, 6},
		{"From ann Mon Mar  2\r\nA: b\r\n\r\n", 29, true, 0},
		{" begins folded\r\nA: b\r\n\r\n", 24, true, 0},
		{"A: b\r\n \r\n\r\n", 11, true, -1}, // a line of white space continues the field (RFC 5322, 4.2)
		{"A: b\rC: d\r\n\r\n", 13, true, -1},
	} {
		h, err := ParseHeader([]byte(c.in))
		bad := -1
		var he *HeaderError
		if errors.As(err, &he) {
			bad = he.Offset
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Len() != c.len || h.Complete() != c.complete || bad != c.bad {
			t.Errorf("%q: length %d, complete %v, bad line at %d", c.in, h.Len(), h.Complete(), bad)
		}
	}
}

func TestHeaderKeepsBadLines(t *testing.T) {
	t.Parallel()
	h, err := ParseHeader(wire("A: b\nno field\nC: d\n\n"))
	if err == nil || err.Error() != "message: header line at octet 6: it has no field name and colon" {
		t.Errorf("got %v", err)
	}
	var lines []string
	for f := range h.Fields() {
		lines = append(lines, string(f.Name)+"="+string(f.Value))
	}
	if want := []string{"A=b", "=no field", "C=d"}; !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
}

func TestHeaderIsBounded(t *testing.T) {
	t.Parallel()
	long := []byte("A: " + strings.Repeat("x", MaxHeaderBytes))
	many := bytes.Repeat([]byte("A:\r\n"), MaxHeaderFields+1)
	folded := append([]byte("A: b\r\n"), bytes.Repeat([]byte(" \r\n"), MaxHeaderBytes/3)...)
	for _, p := range [][]byte{long, many, folded} {
		if h, err := ParseHeader(p); !errors.Is(err, ErrHeaderTooLarge) || h.Len() != 0 {
			t.Errorf("%d octets: %v", len(p), err)
		}
	}
	if _, err := ParseHeader(many[:4*MaxHeaderFields]); err != nil {
		t.Errorf("%d fields: %v", MaxHeaderFields, err)
	}
}

func TestJoinHeader(t *testing.T) {
	t.Parallel()
	p := wire("A: b\nC: d\n\nbody\n")
	for cut := range len(p) {
		got, err := JoinHeader([][]byte{p[:cut], p[cut:]})
		if err != nil || string(got) != string(p[:14]) {
			t.Errorf("cut at %d: %q, %v", cut, got, err)
		}
		if cut >= 14 && &got[0] != &p[0] {
			t.Errorf("cut at %d: the first piece was copied", cut)
		}
	}
	if string(p) != string(wire("A: b\nC: d\n\nbody\n")) {
		t.Error("a piece was changed")
	}
	if got, err := JoinHeader([][]byte{[]byte("A: b"), []byte("\r\n")}); err != nil || string(got) != "A: b\r\n" {
		t.Errorf("a header alone: %q, %v", got, err)
	}
	if got, err := JoinHeader(nil); err != nil || got != nil {
		t.Errorf("nothing: %q, %v", got, err)
	}
	big := bytes.Repeat([]byte("x"), MaxHeaderBytes)
	if _, err := JoinHeader([][]byte{big, big}); !errors.Is(err, ErrHeaderTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	p := wire(typicalHeader)
	allocs := testing.AllocsPerRun(100, func() {
		h, err := ParseHeader(p)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range h.Fields() {
			n++
		}
		if _, ok := h.Get("Message-ID"); !ok || n != h.fields || h.Count("Received") != 3 {
			t.Fatal("misread")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

const typicalHeader = `Received: from out.example.com (out.example.com [192.0.2.1])
	by mx.example.net (Godwit) with ESMTPS id 0123456789
	for <bob@example.net>; Mon, 02 Mar 2026 12:00:00 +0000
Received: from a by b; Mon, 02 Mar 2026 12:00:00 +0000
Received: from b by c; Mon, 02 Mar 2026 12:00:00 +0000
DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; c=relaxed/relaxed;
	h=from:to:subject; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;
	b=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB
From: "Ann Example" <ann@example.com>
To: bob@example.net
Subject: A subject of ordinary length
Date: Mon, 02 Mar 2026 12:00:00 +0000
Message-ID: <20260302120000.1@example.com>
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="abc"
List-Unsubscribe: <https://example.com/u/1>

`

func BenchmarkParseHeader(b *testing.B) {
	p := wire(typicalHeader)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		h, err := ParseHeader(p)
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := h.Get("Message-ID"); !ok {
			b.Fatal("not found")
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(wire(typicalHeader))
	f.Add([]byte("A: b\r\n\r\nbody"))
	f.Add([]byte(" x\n:\nA : b\n c\r\n\r"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := ParseHeader(p)
		var bad *HeaderError
		if err != nil && !errors.As(err, &bad) {
			return
		}
		// The fields are the block, cut without a rest.
		var joined []byte
		nameless := -1
		for f := range h.Fields() {
			if f.Offset != len(joined) || len(f.Raw) == 0 {
				t.Fatalf("field at %d, %d octets seen", f.Offset, len(joined))
			}
			if nameless < 0 && len(f.Name) == 0 {
				nameless = f.Offset
			}
			joined = append(joined, f.Raw...)
			if bytes.ContainsAny(AppendUnfolded(nil, f.Value), "\n") {
				t.Errorf("%q unfolds to several lines", f.Value)
			}
		}
		if !bytes.Equal(joined, h.Bytes()) || !bytes.HasPrefix(p, joined) || h.Len() > len(p) {
			t.Fatalf("%d octets in fields, %d in the block", len(joined), len(h.Bytes()))
		}
		if (bad != nil) != (nameless >= 0) || bad != nil && bad.Offset != nameless {
			t.Errorf("error %v, first line without name at %d", bad, nameless)
		}
		for cut := range min(len(p), 40) {
			got, err := JoinHeader([][]byte{p[:cut], p[cut:]})
			if err != nil || !bytes.Equal(got, p[:h.Len()]) {
				t.Fatalf("cut at %d: %q, %v", cut, got, err)
			}
		}
	})
}
