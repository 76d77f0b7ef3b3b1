package message

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Draft is a message to be composed.
type Draft struct {
	From    []Address // at least one
	Sender  Address   // needed if From has several (RFC 5322, 3.6.2); the zero value leaves the field out
	ReplyTo []Address
	To      []Address // who gets a blind copy is for the envelope alone to know
	Cc      []Address

	Subject   string
	Date      time.Time // zero means now
	MessageID string    // without angle brackets; empty means a random one in the domain of the first From
	InReplyTo string    // Message-ID without angle brackets; also becomes References

	// Text and HTML are two versions of the same body, UTF-8 with any line ends. With both, the receiver chooses.
	Text, HTML  string
	Attachments []Attachment

	// Fields are further header fields, in this order. Their values are text for [AppendField].
	Fields []ExtraField

	// Rand gives boundaries and the Message-ID; nil means crypto/rand.
	Rand io.Reader
}

// ExtraField is a header field that a [Draft] sets besides its own.
type ExtraField struct{ Name, Value string }

// Attachment is a file that goes with a message.
type Attachment struct {
	Name      string // file name without directories, UTF-8
	Type      string // media type with parameters; empty means by the name's extension, else application/octet-stream
	Content   []byte
	ContentID string // without angle brackets: the HTML part shows it as "cid:..."; empty for a plain attachment
}

// Errors of [Draft.Compose] that are about the draft as a whole. What is wrong with a field is told by the errors of
// [AppendField].
var (
	ErrNoSender       = errors.New("message: the draft has no From, or several and no Sender")
	ErrProtectedField = errors.New("the field is not for a draft to set")
)

// protected are the fields that a draft's own members make, that a relay adds, or that would tell what is to stay
// hidden.
var protected = [...]string{
	"from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "in-reply-to", "references",
	"mime-version", "return-path", "received", "dkim-signature", "authentication-results",
}

func isProtected(name string) bool {
	name = strings.ToLower(name)
	for _, p := range protected {
		if name == p {
			return true
		}
	}
	return strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "arc-")
}

// Compose returns the whole message in wire form: CRLF line ends, no line above 998 octets, 7-bit throughout unless a
// mailbox has UTF-8 in it, so that SMTPUTF8 is needed anyway. The draft is not changed.
func (d *Draft) Compose() ([]byte, error) {
	random := d.Rand
	if random == nil {
		random = rand.Reader
	}
	p, err := d.appendHeader(nil, random)
	if err != nil {
		return nil, err
	}
	root, err := d.parts()
	if err != nil {
		return nil, err
	}
	if err := root.bind(random); err != nil {
		return nil, err
	}
	return root.appendTo(append(p, "MIME-Version: 1.0\r\n"...)), nil
}

func (d *Draft) appendHeader(p []byte, random io.Reader) ([]byte, error) {
	if len(d.From) == 0 || len(d.From) > 1 && d.Sender == (Address{}) {
		return nil, ErrNoSender
	}
	date := d.Date
	if date.IsZero() {
		date = time.Now()
	}
	id := d.MessageID
	if id == "" {
		var raw [16]byte
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return nil, fmt.Errorf("message: drawing a Message-ID: %w", err)
		}
		id = hex.EncodeToString(raw[:]) + "@" + d.From[0].Domain
	}
	p = append(AppendDate(append(p, "Date: "...), date), '\r', '\n')
	var sender []Address
	if d.Sender != (Address{}) {
		sender = []Address{d.Sender}
	}
	var err error
	for _, f := range []struct {
		name string
		list []Address
	}{{"From", d.From}, {"Sender", sender}, {"Reply-To", d.ReplyTo}, {"To", d.To}, {"Cc", d.Cc}} {
		if len(f.list) == 0 {
			continue
		}
		if p, err = appendAddresses(p, f.name, f.list); err != nil {
			return nil, err
		}
	}
	if p, err = appendMessageID(p, "Message-ID", id); err != nil {
		return nil, err
	}
	if d.InReplyTo != "" {
		for _, name := range []string{"In-Reply-To", "References"} {
			if p, err = appendMessageID(p, name, d.InReplyTo); err != nil {
				return nil, err
			}
		}
	}
	if d.Subject != "" {
		if p, err = appendText(p, "Subject", d.Subject); err != nil {
			return nil, err
		}
	}
	for _, f := range d.Fields {
		if isProtected(f.Name) {
			return nil, fmt.Errorf("message: field %q: %w", bound(f.Name, 64), ErrProtectedField)
		}
		if p, err = AppendField(p, f.Name, f.Value); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// appendAddresses appends an address field, whose mailboxes may hold UTF-8 (RFC 6532, 3.2).
func appendAddresses(p []byte, name string, list []Address) ([]byte, error) {
	value, err := FormatAddresses(list)
	if err != nil {
		return nil, fmt.Errorf("message: field %q: %w", name, err)
	}
	p = append(append(p, name...), ':')
	if p = appendFolded(p, value, len(name)+1); p == nil {
		return nil, fmt.Errorf("message: field %q: %w", name, ErrFieldLong)
	}
	return append(p, '\r', '\n'), nil
}

// appendText appends a field of free text. ASCII that looks like encoded words is encoded, so that it reads as written.
func appendText(p []byte, name, value string) ([]byte, error) {
	if isASCII(value) && (strings.Contains(value, "=?") || longWord(value)) {
		if err := checkText(value); err != nil {
			return nil, fmt.Errorf("message: field %q: %w", name, err)
		}
		value = encodeText(value, len(name)+2)
	}
	return AppendField(p, name, value)
}

func longWord(s string) bool {
	for w := range strings.FieldsSeq(s) {
		if len(w) > lineMax-1 {
			return true
		}
	}
	return false
}

// appendMessageID appends a field that holds a message identifier (RFC 5322, 3.6.4).
func appendMessageID(p []byte, name, id string) ([]byte, error) {
	left, right, ok := strings.Cut(id, "@")
	bad := !ok || !isDotAtom(left) || right == "" || strings.ContainsAny(right, "<>@ \t")
	if bad || len(id) > 900 || checkText(id) != nil {
		return nil, fmt.Errorf("message: field %q: %q is not a message identifier", name, bound(id, 64))
	}
	p = append(append(p, name...), ": <"...)
	return append(append(p, id...), ">\r\n"...), nil
}

// parts builds the tree of MIME parts (RFC 2046, 5.1; RFC 2387).
func (d *Draft) parts() (*part, error) {
	if !utf8.ValidString(d.Text) || !utf8.ValidString(d.HTML) {
		return nil, fmt.Errorf("message: body: %w", ErrFieldUTF8)
	}
	var body *part
	if d.Text != "" || d.HTML == "" {
		body = textPart("plain", d.Text)
	}
	var related, mixed []*part
	for i := range d.Attachments {
		a := &d.Attachments[i]
		made, err := a.part()
		if err != nil {
			return nil, err
		}
		if a.ContentID != "" && d.HTML != "" {
			related = append(related, made)
		} else {
			mixed = append(mixed, made)
		}
	}
	if d.HTML != "" {
		html := textPart("html", d.HTML)
		if len(related) > 0 {
			html = newMultipart(`related; type="text/html"`, append([]*part{html}, related...))
		}
		if body != nil {
			html = newMultipart("alternative", []*part{body, html})
		}
		body = html
	}
	if len(mixed) > 0 {
		body = newMultipart("mixed", append([]*part{body}, mixed...))
	}
	return body, nil
}

// wireLines returns text with every line end, be it LF, CR or CRLF, turned to CRLF, and one at its end.
func wireLines(text string) []byte {
	out := make([]byte, 0, len(text)+len(text)/32+2)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\r':
			if i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
			out = append(out, '\r', '\n')
		case '\n':
			out = append(out, '\r', '\n')
		default:
			out = append(out, c)
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, '\r', '\n')
	}
	return out
}
