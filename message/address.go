package message

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
)

// Address is a mailbox with the name that a person goes by (RFC 5322, 3.4).
type Address struct {
	Name   string // UTF-8, may be empty
	Local  string // local part without quoting
	Domain string // domain name or address literal with its brackets
}

// ParseAddresses reads the value of a From, To or Cc field, or what a person typed there: mailboxes separated by
// commas, groups taken apart, encoded words decoded. An empty list is an error.
func ParseAddresses(s string) ([]Address, error) {
	if err := checkText(s); err != nil {
		return nil, fmt.Errorf("message: address list: %w", err)
	}
	list, err := mail.ParseAddressList(s)
	if err != nil {
		return nil, fmt.Errorf("message: address list: %s", strings.TrimPrefix(err.Error(), "mail: "))
	}
	if len(list) == 0 { // a group without members
		return nil, errors.New("message: address list: no address")
	}
	out := make([]Address, len(list))
	for i, a := range list {
		at := strings.LastIndexByte(a.Address, '@')
		if at < 1 || at == len(a.Address)-1 {
			return nil, fmt.Errorf("message: address list: %q is not a mailbox", bound(a.Address, 64))
		}
		out[i] = Address{Name: a.Name, Local: a.Address[:at], Domain: a.Address[at+1:]}
		if err := out[i].check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// check refuses what cannot stand in a header field: encoded words can smuggle control characters into a name.
func (a Address) check() error {
	for _, s := range []string{a.Name, a.Local, a.Domain} {
		if err := checkText(s); err != nil {
			return fmt.Errorf("message: address %q: %w", bound(a.Mailbox(), 64), err)
		}
	}
	if a.Local == "" || a.Domain == "" || strings.ContainsAny(a.Domain, "<>()\"\\,; @\t") {
		return fmt.Errorf("message: %q is not a mailbox", bound(a.Mailbox(), 64))
	}
	return nil
}

// Mailbox returns local@domain, the local part quoted if it must be.
func (a Address) Mailbox() string {
	return string(append(append(appendLocal(nil, a.Local), '@'), a.Domain...))
}

// appendLocal appends a local part, quoted unless it is a dot-atom (RFC 5322, 3.4.1).
func appendLocal(dst []byte, local string) []byte {
	if isDotAtom(local) {
		return append(dst, local...)
	}
	return appendQuoted(dst, local)
}

func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if !isAtom(atom) {
			return false
		}
	}
	return true
}

// isAtom reports atext, extended by UTF-8 (RFC 5322, 3.2.3; RFC 6532, 3.2).
func isAtom(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		case strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// String returns the address as a header field has it: the name as a phrase, in encoded words if it is not ASCII, then
// the mailbox in angle brackets; only the mailbox if there is no name.
func (a Address) String() string {
	if a.Name == "" {
		return a.Mailbox()
	}
	return a.phrase() + " <" + a.Mailbox() + ">"
}

func (a Address) phrase() string {
	switch words := strings.Fields(a.Name); {
	case !isASCII(a.Name), strings.Contains(a.Name, "=?"):
		return encodeText(a.Name, len("Reply-To: "))
	case len(words) == 0:
		return `""`
	default:
		for _, w := range words {
			if !isAtom(w) {
				return string(appendQuoted(nil, strings.Join(words, " ")))
			}
		}
		return strings.Join(words, " ")
	}
}

// FormatAddresses returns the value of a field that holds the addresses, for [AppendField]. A mailbox with UTF-8 in it
// makes the value UTF-8, which AppendField would encode as text: such a message is composed by [Draft.Compose], which
// knows.
func FormatAddresses(list []Address) (string, error) {
	var out strings.Builder
	for i, a := range list {
		if err := a.check(); err != nil {
			return "", err
		}
		if i > 0 {
			out.WriteString(", ")
		}
		out.WriteString(a.String())
	}
	return out.String(), nil
}
