package authres

import (
	"bytes"
	"strings"
)

// Parse reads a field's value: the name of who found the results out, and the results (RFC 8601, 2.2). Versions are passed over,
// and so are comments and properties without a type, which some receivers write. Values are as they stand, without quotes. The
// error is ErrField; a value that is not wholly understood is not half believed.
func Parse(value []byte) (id string, results []Result, err error) {
	if id, err = ID(value); err != nil {
		return "", nil, err
	}
	p := parser{rest: value}
	if _, err := p.value(); err != nil { // the name, once more
		return "", nil, err
	}
	if p.next() && p.rest[0] != ';' {
		if v, err := p.value(); err != nil || !isWord(v) { // the version
			return "", nil, ErrField
		}
	}
	for p.next() {
		if p.rest[0] != ';' {
			return "", nil, ErrField
		}
		p.rest = p.rest[1:]
		if !p.next() || p.rest[0] == ';' {
			continue
		}
		r, err := p.result()
		switch {
		case err != nil:
			return "", nil, err
		case r.Method == "": // "none"
		case len(results) == MaxResults:
			return "", nil, ErrField
		default:
			results = append(results, r)
		}
	}
	if p.bad {
		return "", nil, ErrField
	}
	return id, results, nil
}

// parser reads from the begin of rest.
type parser struct {
	rest []byte
	bad  bool
}

// next passes over white space and comments, and reports whether something follows.
func (p *parser) next() bool {
	rest, err := skip(p.rest)
	p.rest, p.bad = rest, p.bad || err != nil
	return err == nil && len(rest) > 0
}

// word reads letters, digits and what words have besides.
func (p *parser) word() string {
	n := 0
	for n < len(p.rest) && (isAlnum(p.rest[n]) || p.rest[n] == '-' || p.rest[n] == '_') {
		n++
	}
	w := string(p.rest[:n])
	p.rest = p.rest[n:]
	return strings.ToLower(w)
}

// value reads a quoted string or what stands before white space, a comment or ";".
func (p *parser) value() (string, error) {
	if !p.next() {
		return "", ErrField
	}
	if p.rest[0] == '"' {
		v, rest, err := quoted(p.rest)
		if err == nil && len(rest) > 0 && rest[0] == '@' { // a mailbox whose local part is quoted
			p.rest = rest[1:]
			var domain string
			domain, err = p.value()
			return v + "@" + domain, err
		}
		p.rest = rest
		return v, err
	}
	n := bytes.IndexAny(p.rest, " \t\r\n(;")
	if n < 0 {
		n = len(p.rest)
	}
	v := p.rest[:n]
	p.rest = p.rest[n:]
	for _, c := range v {
		if c < ' ' || c == 0x7f || c == '"' {
			return "", ErrField
		}
	}
	if n == 0 {
		return "", ErrField
	}
	return string(v), nil
}

// result reads "method[/version]=value", a reason and properties.
func (p *parser) result() (r Result, err error) {
	name := p.word()
	if !p.next() || p.rest[0] == ';' {
		if name != "none" || p.bad {
			return r, ErrField
		}
		return r, nil
	}
	if p.rest[0] == '/' {
		p.rest = p.rest[1:]
		if !p.next() || p.word() == "" || !p.next() {
			return r, ErrField
		}
	}
	if name == "" || p.rest[0] != '=' {
		return r, ErrField
	}
	p.rest = p.rest[1:]
	if !p.next() {
		return r, ErrField
	}
	r.Method, r.Value = name, p.word()
	if r.Value == "" {
		return r, ErrField
	}
	for p.next() && p.rest[0] != ';' {
		if err := p.property(&r); err != nil {
			return r, err
		}
	}
	return r, nil
}

// property reads "type.name=value" or "reason=value".
func (p *parser) property(r *Result) error {
	typ := p.word()
	if typ == "" || !p.next() {
		return ErrField
	}
	name := ""
	if p.rest[0] == '.' {
		p.rest = p.rest[1:]
		if !p.next() {
			return ErrField
		}
		if name = p.word(); name == "" || !p.next() {
			return ErrField
		}
	}
	if p.rest[0] != '=' {
		return ErrField
	}
	p.rest = p.rest[1:]
	v, err := p.value()
	switch {
	case err != nil:
		return err
	case name != "":
		if len(r.Properties) == MaxResults {
			return ErrField
		}
		r.Properties = append(r.Properties, Property{Type: typ, Name: name, Value: v})
	case typ == "reason":
		r.Reason = v
	}
	return nil
}

// Property returns the value of the first property of a type and a name.
func (r *Result) Property(typ, name string) (string, bool) {
	for _, p := range r.Properties {
		if p.Type == typ && p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}
