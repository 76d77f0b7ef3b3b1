package smtp

// ParseError says that outside text breaks the grammar, and which reply a server gives to it.
type ParseError struct {
	Code     int
	Enhanced EnhancedCode
	Text     string // fixed words, never a part of the input
}

// Error returns the words without the codes, so that a command line tool can show them.
func (e *ParseError) Error() string { return e.Text }

// Reply returns the reply a server gives.
func (e *ParseError) Reply() Reply { return Reply{Code: e.Code, Enhanced: e.Enhanced, Text: e.Text} }

// parameterError is the answer to a broken parameter value (RFC 5321, 4.2.4; RFC 3463, 3.6).
func parameterError(text string) error {
	return &ParseError{Code: 501, Enhanced: EnhancedCode{5, 5, 4}, Text: text}
}
