package submission

import (
	"cmp"
	"errors"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/godwit-mta/godwit/smtp"
)

// errAuthor says that a field that names authors cannot be read in one way only. Readers of mail disagree on such fields,
// which is how people are made to see an address that was never checked.
var errAuthor = errors.New("submission: a field of authors is not a list of addresses")

// maxAuthors bounds the addresses of one field.
const maxAuthors = 100

// eachAuthor calls f for each address of a field's value (RFC 5322, 3.4, groups and routes included), and for addresses in
// angle brackets within names, which some programs show as if they were the address. It ends with the first error,
// its own or that of f.
func eachAuthor(value string, f func(smtp.Path) error) error {
	p := authorParser{s: value, yield: f, shown: f}
	return p.list()
}

// eachMailbox calls f for each address of a field's value and for nothing that merely looks like one.
func eachMailbox(value string, f func(smtp.Path) error) error {
	p := authorParser{s: value, yield: f, shown: func(smtp.Path) error { return nil }}
	return p.list()
}

// authorParser reads strictly: what the grammar does not allow is an error, not a guess.
type authorParser struct {
	s     string
	i     int
	n     int                   // addresses
	yield func(smtp.Path) error // told of addresses
	shown func(smtp.Path) error // told of what some programs show as addresses
}

// word is a part of a phrase or of a local part.
type word struct {
	text   string
	quoted bool
	dot    bool
}

func (p *authorParser) list() error {
	group := false
	var words []word
	for {
		if err := p.space(); err != nil {
			return err
		}
		if p.i == len(p.s) {
			if len(words) > 0 || group || p.n == 0 {
				return errAuthor
			}
			return nil
		}
		var err error
		switch c := p.s[p.i]; c {
		case ',':
			p.i++
			if len(words) > 0 {
				return errAuthor
			}
		case ';':
			p.i++
			if len(words) > 0 || !group {
				return errAuthor
			}
			group = false
			err = p.end(group)
		case ':':
			p.i++
			if len(words) == 0 || group {
				return errAuthor
			}
			err = p.names(words)
			words, group = words[:0], true
		case '<':
			p.i++
			if err = p.names(words); err == nil {
				err = p.angle()
			}
			if words = words[:0]; err == nil {
				err = p.end(group)
			}
		case '@':
			p.i++
			err = p.address(words)
			if words = words[:0]; err == nil {
				err = p.end(group)
			}
		default:
			var w word
			if w, err = p.word(); err == nil {
				words = append(words, w)
			}
		}
		if err != nil {
			return err
		}
	}
}

// space skips white space, line ends and comments.
func (p *authorParser) space() error {
	depth := 0
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == ' ', c == '\t', c == '\r', c == '\n':
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			return nil
		case c == '\\':
			p.i++
		case c < ' ' || c == 0x7f:
			return errAuthor
		}
	}
	if depth > 0 {
		return errAuthor
	}
	p.i = min(p.i, len(p.s))
	return nil
}

// end wants a comma, the end of the group or of the value.
func (p *authorParser) end(group bool) error {
	if err := p.space(); err != nil {
		return err
	}
	if p.i == len(p.s) || p.s[p.i] == ',' || p.s[p.i] == ';' && group {
		return nil
	}
	return errAuthor
}

func (p *authorParser) word() (word, error) {
	switch c := p.s[p.i]; {
	case c == '.':
		p.i++
		return word{text: ".", dot: true}, nil
	case c == '"':
		return p.quoted()
	}
	begin := p.i
	for p.i < len(p.s) && isAtomOctet(p.s[p.i]) {
		p.i++
	}
	if p.i == begin || !utf8.ValidString(p.s[begin:p.i]) {
		return word{}, errAuthor
	}
	return word{text: p.s[begin:p.i]}, nil
}

func (p *authorParser) quoted() (word, error) {
	begin := p.i + 1
	escaped := false
	for p.i = begin; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			text := p.s[begin:p.i]
			p.i++
			if escaped {
				text = unescape(text)
			}
			if !utf8.ValidString(text) {
				return word{}, errAuthor
			}
			return word{text: text, quoted: true}, nil
		case c == '\\':
			escaped = true
			p.i++
		case c == '\r', c == '\n', c == '\t': // folded
		case c < ' ' || c == 0x7f:
			return word{}, errAuthor
		}
	}
	return word{}, errAuthor
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isAtomOctet(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= 0x80 ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// angle reads what follows '<', with the route that RFC 5322, 4.4, still lets stand there.
func (p *authorParser) angle() error {
	var words []word
	for {
		if err := p.space(); err != nil {
			return err
		}
		if p.i == len(p.s) {
			return errAuthor
		}
		switch c := p.s[p.i]; {
		case c == '@' && len(words) == 0: // a route: its domains are checked like authors, since some readers show them
			p.i++
			d, err := p.domain()
			if err != nil {
				return err
			}
			if err := p.found(p.shown, smtp.Path{Local: "route", Domain: d}); err != nil {
				return err
			}
			if err := p.space(); err != nil || p.i == len(p.s) || p.s[p.i] != ',' && p.s[p.i] != ':' {
				return errAuthor
			}
			p.i++
		case c == '@':
			p.i++
			if err := p.address(words); err != nil {
				return err
			}
			if err := p.space(); err != nil || p.i == len(p.s) || p.s[p.i] != '>' {
				return errAuthor
			}
			p.i++
			return nil
		default:
			w, err := p.word()
			if err != nil {
				return err
			}
			words = append(words, w)
		}
	}
}

// address reads the domain behind an '@' whose local part are the words.
func (p *authorParser) address(words []word) error {
	local := ""
	for i, w := range words {
		if w.dot != (i%2 == 1) { // words and dots take turns
			return errAuthor
		}
		local += w.text
	}
	if len(words)%2 == 0 {
		return errAuthor
	}
	d, err := p.domain()
	if err != nil {
		return err
	}
	return p.found(p.yield, smtp.Path{Local: local, Domain: d})
}

func (p *authorParser) domain() (string, error) {
	if err := p.space(); err != nil || p.i == len(p.s) {
		return "", errAuthor
	}
	begin := p.i
	if p.s[p.i] == '[' {
		end := strings.IndexByte(p.s[p.i:], ']')
		if end < 0 {
			return "", errAuthor
		}
		p.i += end + 1
		return p.s[begin:p.i], nil
	}
	for p.i < len(p.s) && (isAtomOctet(p.s[p.i]) || p.s[p.i] == '.') {
		p.i++
	}
	return p.s[begin:p.i], nil
}

func (p *authorParser) found(yield func(smtp.Path) error, path smtp.Path) error {
	if p.n++; p.n > maxAuthors || path.Domain == "" {
		return errAuthor
	}
	return yield(path)
}

// names looks for addresses in a display name, as its reader sees it.
func (p *authorParser) names(words []word) error {
	var name strings.Builder
	for i, w := range words {
		if i > 0 {
			name.WriteByte(' ')
		}
		name.WriteString(w.text)
	}
	text := name.String()
	if strings.Contains(text, "=?") {
		var d mime.WordDecoder
		decoded, err := d.DecodeHeader(text)
		if err == nil {
			text = decoded
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return errAuthor // "a@b\x00" has been a way to hide what follows
		}
	}
	for {
		_, rest, ok := strings.Cut(text, "<")
		if !ok {
			return nil
		}
		inner, _, _ := strings.Cut(rest, ">")
		if at := strings.LastIndexByte(inner, '@'); at >= 0 {
			local := cmp.Or(strings.TrimSpace(inner[:at]), "?")
			if err := p.found(p.shown, smtp.Path{Local: local, Domain: strings.TrimSpace(inner[at+1:])}); err != nil {
				return err
			}
			p.n-- // it is no address of the list
		}
		text = rest
	}
}
