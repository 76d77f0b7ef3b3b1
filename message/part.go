package message

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"path"
	"strings"
)

// part is a MIME entity on its way out: header fields without the boundary parameter, and encoded content or children.
type part struct {
	header   []byte // complete fields, but for a multipart its Content-Type is open: see appendTo
	content  []byte // encoded
	children []*part
	boundary string
}

const (
	fileNameMax = 255 // octets
	plainMax    = 780 // of a line that is sent unencoded, well below what is allowed
)

func newMultipart(subtype string, children []*part) *part {
	return &part{header: []byte("Content-Type: multipart/" + subtype), children: children}
}

// textPart makes a text part in the plainest encoding that carries it (RFC 2045, 6).
func textPart(subtype, text string) *part {
	content := wireLines(text)
	p := &part{header: []byte("Content-Type: text/" + subtype + "; charset=utf-8\r\n")}
	switch {
	case isPlain(content):
		p.header = append(p.header, "Content-Transfer-Encoding: 7bit\r\n"...)
		p.content = content
	case mostlyEightBit(content):
		p.setBase64(content)
	default:
		p.header = append(p.header, "Content-Transfer-Encoding: quoted-printable\r\n"...)
		var out bytes.Buffer
		w := quotedprintable.NewWriter(&out)
		w.Write(content) // a bytes.Buffer takes all
		w.Close()
		p.content = out.Bytes()
	}
	return p
}

// isPlain reports content that can be sent as it is: printable ASCII in lines of moderate length, without trailing
// spaces, which some relays eat, and without lines that an mbox file would mangle.
func isPlain(p []byte) bool {
	for line := range bytes.Lines(p) {
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || len(line) > plainMax || bytes.HasSuffix(line, []byte(" ")) || bytes.HasPrefix(line, []byte("From ")) {
			return false
		}
		for _, c := range line {
			if c < ' ' && c != '\t' || c >= 0x7f {
				return false
			}
		}
	}
	return true
}

func mostlyEightBit(p []byte) bool {
	n := 0
	for _, c := range p {
		if c >= 0x80 {
			n++
		}
	}
	return n > len(p)/3
}

func (p *part) setBase64(content []byte) {
	p.header = append(p.header, "Content-Transfer-Encoding: base64\r\n"...)
	const line = 57 // octets in, 76 characters out
	p.content = make([]byte, 0, (len(content)/line+1)*78)
	for len(content) > 0 {
		n := min(line, len(content))
		p.content = append(base64.StdEncoding.AppendEncode(p.content, content[:n]), '\r', '\n')
		content = content[n:]
	}
}

// part makes the entity of an attachment, always in base64: its bytes arrive as they are. Names and types that hold
// control characters are refused.
func (a *Attachment) part() (*part, error) {
	fail := func(err error) (*part, error) {
		return nil, fmt.Errorf("message: attachment %q: %w", bound(a.Name, 64), err)
	}
	if err := checkText(a.Name); err != nil {
		return fail(err)
	}
	if len(a.Name) > fileNameMax {
		return fail(errors.New("the file name is too long"))
	}
	media, params, err := mime.ParseMediaType(a.mediaType())
	if err != nil {
		return fail(fmt.Errorf("media type: %w", err))
	}
	if kind, _, _ := strings.Cut(media, "/"); kind == "multipart" || kind == "message" {
		// Neither may be in base64 (RFC 2046, 5.1 and 5.2.1), and carrying it as a file is what an attachment is for.
		media, params = "application/octet-stream", nil
	}
	typeValue := mime.FormatMediaType(media, params)
	disposition := "attachment"
	if a.ContentID != "" {
		disposition = "inline"
	}
	var dispParams map[string]string
	if a.Name != "" {
		dispParams = map[string]string{"filename": a.Name}
	}
	p := new(part)
	for _, f := range []struct{ name, value string }{
		{"Content-Type", typeValue},
		{"Content-Disposition", mime.FormatMediaType(disposition, dispParams)}, // RFC 2231 if need be
	} {
		if f.value == "" {
			return fail(errors.New("the media type cannot be written"))
		}
		if p.header, err = AppendField(p.header, f.name, f.value); err != nil {
			return fail(err)
		}
	}
	if a.ContentID != "" {
		if p.header, err = appendMessageID(p.header, "Content-ID", a.ContentID); err != nil {
			return fail(err)
		}
	}
	p.setBase64(a.Content)
	return p, nil
}

func (a *Attachment) mediaType() string {
	if a.Type != "" {
		return a.Type
	}
	if t := mime.TypeByExtension(path.Ext(a.Name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// boundaryTries bounds the search for a boundary that does not occur. One try fails by chance once in 2^96.
const boundaryTries = 10

// bind gives each multipart a boundary that occurs in none of the contents.
func (p *part) bind(random io.Reader) error {
	if p.children == nil {
		return nil
	}
	for _, c := range p.children {
		if err := c.bind(random); err != nil {
			return err
		}
	}
	for range boundaryTries {
		var raw [12]byte
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return fmt.Errorf("message: drawing a boundary: %w", err)
		}
		p.boundary = "=_" + hex.EncodeToString(raw[:]) // "=_" occurs neither in base64 nor in quoted-printable
		if !p.holds(p.boundary) {
			return nil
		}
	}
	return errors.New("message: the random source gives only boundaries that occur in the content")
}

// holds reports whether the boundary occurs in what p contains.
func (p *part) holds(boundary string) bool {
	if bytes.Contains(p.content, []byte(boundary)) || bytes.Contains(p.header, []byte(boundary)) {
		return true
	}
	for _, c := range p.children {
		if c.boundary == boundary || c.holds(boundary) {
			return true
		}
	}
	return false
}

// appendTo appends the header fields, the empty line and the content.
func (p *part) appendTo(dst []byte) []byte {
	dst = append(dst, p.header...)
	if p.children == nil {
		return append(append(dst, '\r', '\n'), p.content...)
	}
	dst = append(append(append(dst, ";\r\n boundary=\""...), p.boundary...), "\"\r\n\r\n"...)
	for _, c := range p.children {
		dst = append(append(append(dst, "--"...), p.boundary...), '\r', '\n')
		dst = append(c.appendTo(dst), '\r', '\n')
	}
	return append(append(append(dst, "--"...), p.boundary...), "--\r\n"...)
}
