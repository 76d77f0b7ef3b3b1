package spool

import "testing"

// TestAuthIsKept: what was found of a message stands in its record, and a message without it is written as it always was.
func TestAuthIsKept(t *testing.T) {
	t.Parallel()
	m := wholeMessage()
	before := len(appendMessage(nil, m))
	m.Auth = "spf=pass dkim=none dmarc=pass"
	p := appendMessage(nil, m)
	d := decoder{s: string(p)}
	var got Message
	d.message(&got)
	if d.err != nil || d.s != "" || got.Auth != m.Auth || len(p) != before+1+len(m.Auth) {
		t.Errorf("%v: %q, %d octets more", d.err, got.Auth, len(p)-before)
	}
}
