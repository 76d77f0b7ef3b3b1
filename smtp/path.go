package smtp

// Path is a reverse-path or forward-path without its angle brackets (RFC 5321, 4.1.2). Local is the local part with
// quoting removed and its case kept (RFC 5321, 2.4); Domain is as received: a domain name, with U-labels only under
// SMTPUTF8, or an address literal with its brackets. The zero value is the null reverse-path.
type Path struct {
	Local  string
	Domain string
}

// IsNull reports the null reverse-path <>, the sender of reports (RFC 5321, 4.5.5).
func (p Path) IsNull() bool { return p == Path{} }

// String returns the mailbox as it stands between angle brackets, the local part quoted if it must be; empty for the
// null path.
func (p Path) String() string {
	if p.IsNull() {
		return ""
	}
	return string(p.AppendTo(nil))
}

// AppendTo appends the mailbox to dst, the local part quoted if it is not a dot-string (RFC 5321, 4.1.2).
func (p Path) AppendTo(dst []byte) []byte {
	if isDotString(p.Local) {
		dst = append(dst, p.Local...)
	} else {
		dst = append(dst, '"')
		for i := range len(p.Local) {
			if c := p.Local[i]; c == '"' || c == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, p.Local[i])
		}
		dst = append(dst, '"')
	}
	if p.Domain == "" { // <Postmaster> alone has no domain (RFC 5321, 4.1.1.3)
		return dst
	}
	dst = append(dst, '@')
	return append(dst, p.Domain...)
}

func isDotString(s string) bool {
	if s == "" {
		return false
	}
	dot := true // a dot may not begin, end or follow another
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if dot {
				return false
			}
			dot = true
			continue
		case !isAtext(c):
			return false
		}
		dot = false
	}
	return !dot
}

// isAtext reports RFC 5322 atext, extended by all octets above 127 (RFC 6531, 3.3).
func isAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '/', '=', '?', '^', '_', '`', '{', '|', '}', '~':
		return true
	}
	return false
}
