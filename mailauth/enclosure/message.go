package enclosure

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"strings"

	"github.com/godwit-mta/godwit/message"
)

// maxHeader bounds the header block of a message or part.
const maxHeader = 256 << 10

// maxBoundary is the longest boundary (RFC 2046, 5.1.1: 70 octets), with patience for those who count otherwise.
const maxBoundary = 256

// entity looks through a message, whose header r begins with.
func (f *finder) entity(r *bufio.Reader, depth int) error {
	block, err := headerBlock(r)
	if err != nil {
		return err
	}
	h, err := message.ParseHeader(block)
	var fault *message.HeaderError
	if err != nil && !errors.As(err, &fault) { // a line that is no field does not hide the others
		return err
	}
	get := func(name string) string {
		v, _ := h.Get(name)
		return string(message.AppendUnfolded(nil, v))
	}
	return f.part(get, r, depth)
}

// headerBlock reads up to the empty line, which is not part of it.
func headerBlock(r *bufio.Reader) ([]byte, error) {
	var block []byte
	for whole := true; ; {
		line, err := r.ReadSlice('\n')
		if whole && len(line) > 0 && len(strings.TrimRight(string(line[:min(len(line), 3)]), "\r\n")) == 0 {
			return block, nil
		}
		if len(block)+len(line) > maxHeader {
			return nil, fmt.Errorf("a header of more than %d octets: %w", maxHeader, ErrTooLarge)
		}
		block = append(block, line...)
		whole = true
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			whole = false
		case errors.Is(err, io.EOF):
			return block, nil
		case err != nil:
			return nil, err
		}
	}
}

// part looks at one part with its fields: for parts in it, or a document.
func (f *finder) part(get func(string) string, r io.Reader, depth int) error {
	if f.parts++; f.parts > f.limits.Parts {
		return fmt.Errorf("more than %d parts: %w", f.limits.Parts, ErrTooLarge)
	}
	if depth > f.limits.Depth {
		return fmt.Errorf("parts more than %d deep: %w", f.limits.Depth, ErrTooLarge)
	}
	kind, params, err := mime.ParseMediaType(get("Content-Type"))
	if err != nil && kind == "" {
		kind = "application/octet-stream" // by its octets, then
	}
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		return f.multipart(params["boundary"], r, depth)
	case kind == "message/rfc822", kind == "message/global":
		return f.entity(bufio.NewReaderSize(decoded(get("Content-Transfer-Encoding"), r), sniffed), depth+1)
	case kind == "text/html", kind == "text/rfc822-headers":
		return nil
	}
	name := params["name"]
	if _, disposition, err := mime.ParseMediaType(get("Content-Disposition")); err == nil && disposition["filename"] != "" {
		name = disposition["filename"]
	}
	_, err = f.unpack(name, bufio.NewReaderSize(decoded(get("Content-Transfer-Encoding"), r), sniffed), 0)
	return err
}

func (f *finder) multipart(boundary string, r io.Reader, depth int) error {
	if boundary == "" || len(boundary) > maxBoundary {
		return fmt.Errorf("a multipart boundary of %d octets", len(boundary))
	}
	mr := multipart.NewReader(r, boundary)
	for {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // many forget the last boundary
		}
		if err != nil {
			return fmt.Errorf("multipart: %w", err)
		}
		if err := f.part(p.Header.Get, unended{p}, depth+1); err != nil {
			return err
		}
	}
}

// unended reads a part whose last boundary is missing as if it were there. What is really cut off its reader finds out.
type unended struct{ r io.Reader }

func (u unended) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// decoded undoes a Content-Transfer-Encoding (RFC 2045, 6).
func decoded(encoding string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &lettersOnly{r})
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// lettersOnly drops what base64 readers must ignore (RFC 2045, 6.8), of which the standard library knows line ends alone.
type lettersOnly struct{ r io.Reader }

func (l *lettersOnly) Read(p []byte) (int, error) {
	for {
		n, err := l.r.Read(p)
		kept := p[:0]
		for _, c := range p[:n] {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '=':
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 || err != nil || len(p) == 0 {
			return len(kept), err
		}
	}
}
