package tlspolicy

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// mode is what a policy of MTA-STS asks for (RFC 8461, 3.2).
type mode string

const (
	modeEnforce mode = "enforce"
	modeTesting mode = "testing"
	modeNone    mode = "none"
)

// maxMaxAge is the longest that a policy may ask to be kept: about a year (RFC 8461, 3.2).
const maxMaxAge = 31_557_600 * time.Second

// stsPolicy is a policy as parsed. It does not change.
type stsPolicy struct {
	mode     mode
	patterns []string // "mx", lower case, without final dot
	maxAge   time.Duration
	lines    []string // as published, for reports
}

// matches reports whether host, lower case and without final dot, is one of the policy's. A wildcard stands for one
// label and no more (RFC 8461, 4.1).
func (p *stsPolicy) matches(host string) bool {
	for _, pattern := range p.patterns {
		if parent, wild := strings.CutPrefix(pattern, "*."); wild {
			if _, rest, ok := strings.Cut(host, "."); ok && rest == parent {
				return true
			}
		} else if host == pattern {
			return true
		}
	}
	return false
}

// parsePolicy reads a policy document (RFC 8461, 3.2). Of a field that stands twice the first counts, except mx; unknown
// fields are passed over. Empty lines, which the grammar does not have, are too: editors leave them.
func parsePolicy(text string) (*stsPolicy, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("it is not UTF-8")
	}
	p := new(stsPolicy)
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.Trim(line, " \t") == "" {
			continue
		}
		p.lines = append(p.lines, line)
		key, value, ok := strings.Cut(line, ":")
		if !ok || !isFieldName(key) {
			return nil, fmt.Errorf("line %d is no field: %q", len(p.lines), cut(line, 40))
		}
		value = strings.Trim(value, " \t")
		if err := p.field(key, value, seen[key]); err != nil {
			return nil, err
		}
		seen[key] = true
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return nil, fmt.Errorf("it has no field %q", key)
		}
	}
	if len(p.patterns) == 0 && p.mode != modeNone {
		return nil, errors.New(`it names no "mx"`)
	}
	return p, nil
}

func (p *stsPolicy) field(key, value string, again bool) error {
	switch key {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("its version is %q, not STSv1", cut(value, 20))
		}
	case "mode":
		m := mode(value)
		if m != modeEnforce && m != modeTesting && m != modeNone {
			return fmt.Errorf("its mode is %q, not enforce, testing or none", cut(value, 20))
		}
		if !again {
			p.mode = m
		}
	case "max_age":
		seconds, ok := decimal(value)
		if !ok {
			return fmt.Errorf("its max_age %q is no number of seconds", cut(value, 20))
		}
		if !again {
			p.maxAge = time.Duration(min(seconds, int64(maxMaxAge/time.Second))) * time.Second
		}
	case "mx":
		pattern := strings.ToLower(value)
		if !isHostName(strings.TrimPrefix(pattern, "*.")) {
			return fmt.Errorf("its mx %q is no host name", cut(value, 60))
		}
		p.patterns = append(p.patterns, pattern)
	default:
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("its field %q has no value that can be read", key)
		}
	}
	return nil
}

// isFieldName: a letter or digit, then up to 31 of letters, digits, "_", "-", ".".
func isFieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 32
}

// isHostName takes the Domain of RFC 5321, 4.1.2: letters, digits and hyphens, which do not stand at the ends of a label.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// decimal reads up to ten digits.
func decimal(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, 0 < len(s) && len(s) <= 10
}

// isRecord reports whether a TXT record at _mta-sts is meant for MTA-STS at all (RFC 8461, 3.1).
func isRecord(txt string) bool {
	rest, ok := strings.CutPrefix(txt, "v=STSv1")
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

// recordID returns the id of the one record among the TXT records at _mta-sts. Without exactly one that can be read the
// domain has no policy (RFC 8461, 3.1); why says what is wrong if there seems to be one.
func recordID(records []string) (id, why string) {
	found := 0
	for _, txt := range records {
		if isRecord(txt) {
			found++
			id, why = parseRecord(txt)
		}
	}
	if found > 1 {
		return "", fmt.Sprintf("%d TXT records begin with v=STSv1", found)
	}
	return id, why
}

// parseRecord reads one record: "v=STSv1; id=20260101T000000;".
func parseRecord(txt string) (id, why string) {
	fields := strings.Split(txt, ";")
	if last := len(fields) - 1; strings.Trim(fields[last], " \t") == "" {
		fields = fields[:last]
	}
	for i, field := range fields {
		if i == 0 { // the version
			continue
		}
		key, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
		switch {
		case !ok || !isFieldName(key) || value == "":
			return "", "the TXT record has a field that cannot be read"
		case key == "id" && id == "":
			if len(value) > 32 || strings.ContainsFunc(value, func(r rune) bool { return r > 0x7f || !isAlphanumeric(byte(r)) }) {
				return "", "the TXT record's id is not 1 to 32 letters and digits"
			}
			id = value
		case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' }):
			return "", "the TXT record has a value that cannot be read"
		}
	}
	if id == "" {
		return "", "the TXT record has no id"
	}
	return id, ""
}

// cut bounds a text that came from outside and makes it printable ASCII, as reports have it.
func cut(s string, n int) string {
	s = s[:min(len(s), n)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
