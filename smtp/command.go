package smtp

import "bytes"

// Verb is the first word of a command (RFC 5321, 4.1.1).
type Verb uint8

const (
	VerbUnknown Verb = iota
	VerbHelo
	VerbEhlo
	VerbMail
	VerbRcpt
	VerbData
	VerbBdat // RFC 3030
	VerbRset
	VerbNoop
	VerbVrfy
	VerbExpn
	VerbHelp
	VerbQuit
	VerbStartTLS // RFC 3207
	VerbAuth     // RFC 4954
	VerbXClient  // of Postfix: a trusted peer names its client
	VerbXForward // of Postfix: a trusted peer tells whom it passes on, for logs
)

var verbWords = [...]string{
	VerbUnknown: "unknown", VerbHelo: "HELO", VerbEhlo: "EHLO", VerbMail: "MAIL", VerbRcpt: "RCPT", VerbData: "DATA",
	VerbBdat: "BDAT", VerbRset: "RSET", VerbNoop: "NOOP", VerbVrfy: "VRFY", VerbExpn: "EXPN", VerbHelp: "HELP",
	VerbQuit: "QUIT", VerbStartTLS: "STARTTLS", VerbAuth: "AUTH",
	VerbXClient: "XCLIENT", VerbXForward: "XFORWARD",
}

// String returns the word as it stands on the wire, "unknown" for all others.
func (v Verb) String() string { return verbWords[v] }

// ParseCommand splits a command line, without its CRLF, into verb and arguments. The verb is read in any case (RFC
// 5321, 2.4); spaces around the arguments are dropped. args is a part of line. For MAIL and RCPT args begins after
// "FROM:" and "TO:", whose absence is told by ok false; a space after the colon, which the grammar forbids and many
// clients send, is skipped.
func ParseCommand(line []byte) (verb Verb, args []byte, ok bool) {
	word, args, _ := bytes.Cut(line, []byte{' '})
	verb = parseVerb(word)
	args = bytes.Trim(args, " ")
	switch verb {
	case VerbMail:
		args, ok = cutPrefixFold(args, "FROM:")
	case VerbRcpt:
		args, ok = cutPrefixFold(args, "TO:")
	default:
		ok = true
	}
	return verb, args, ok
}

func cutPrefixFold(s []byte, prefix string) ([]byte, bool) {
	if len(s) < len(prefix) || !equalFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return bytes.TrimLeft(s[len(prefix):], " "), true
}

// equalFold compares s to the upper case ASCII word.
func equalFold(s []byte, word string) bool {
	if len(s) != len(word) {
		return false
	}
	for i, c := range s {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

func parseVerb(word []byte) Verb {
	switch len(word) {
	case 4:
		key := uint32(word[0])<<24 | uint32(word[1])<<16 | uint32(word[2])<<8 | uint32(word[3])
		switch key &^ 0x20202020 { // folds letters; what else it folds is excluded below
		case 'H'<<24 | 'E'<<16 | 'L'<<8 | 'O':
			return confirm(word, VerbHelo)
		case 'E'<<24 | 'H'<<16 | 'L'<<8 | 'O':
			return confirm(word, VerbEhlo)
		case 'M'<<24 | 'A'<<16 | 'I'<<8 | 'L':
			return confirm(word, VerbMail)
		case 'R'<<24 | 'C'<<16 | 'P'<<8 | 'T':
			return confirm(word, VerbRcpt)
		case 'D'<<24 | 'A'<<16 | 'T'<<8 | 'A':
			return confirm(word, VerbData)
		case 'B'<<24 | 'D'<<16 | 'A'<<8 | 'T':
			return confirm(word, VerbBdat)
		case 'R'<<24 | 'S'<<16 | 'E'<<8 | 'T':
			return confirm(word, VerbRset)
		case 'N'<<24 | 'O'<<16 | 'O'<<8 | 'P':
			return confirm(word, VerbNoop)
		case 'V'<<24 | 'R'<<16 | 'F'<<8 | 'Y':
			return confirm(word, VerbVrfy)
		case 'E'<<24 | 'X'<<16 | 'P'<<8 | 'N':
			return confirm(word, VerbExpn)
		case 'H'<<24 | 'E'<<16 | 'L'<<8 | 'P':
			return confirm(word, VerbHelp)
		case 'Q'<<24 | 'U'<<16 | 'I'<<8 | 'T':
			return confirm(word, VerbQuit)
		case 'A'<<24 | 'U'<<16 | 'T'<<8 | 'H':
			return confirm(word, VerbAuth)
		}
	case len("XCLIENT"):
		return confirm(word, VerbXClient)
	case len("STARTTLS"): // and of XFORWARD
		if word[0]|0x20 == 'x' {
			return confirm(word, VerbXForward)
		}
		return confirm(word, VerbStartTLS)
	}
	return VerbUnknown
}

func confirm(word []byte, v Verb) Verb {
	if equalFold(word, verbWords[v]) {
		return v
	}
	return VerbUnknown
}
