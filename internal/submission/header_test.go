package submission_test

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

var (
	traceField = regexp.MustCompile(`^Received: from app\.test \(\[[0-9.]+\]\)\r\n\tby mx\.test with ESMTPA? id [0-9a-z]{20}\r\n\tfor <u@[a-z.]+>;\r\n\t[^\r]+\r\n`)
	dateField  = regexp.MustCompile(`(?m)^Date: [A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n`)
	idField    = regexp.MustCompile(`(?m)^Message-ID: <[0-9a-z]{20}@mx\.test>\r\n`)
)

// masked replaces what differs from run to run.
func masked(t *testing.T, text string) string {
	t.Helper()
	if !traceField.MatchString(text) {
		t.Errorf("our Received field is not on top: %q", text)
	}
	text = traceField.ReplaceAllString(text, "[trace]\r\n")
	text = dateField.ReplaceAllString(text, "[date]\r\n")
	return idField.ReplaceAllString(text, "[id]\r\n")
}

// TestHeaders is what is done to a header, for each way in. The body is never touched.
func TestHeaders(t *testing.T) {
	t.Parallel()
	relay := netip.MustParsePrefix("10.0.0.0/8")
	policy := submission.Policy{
		TrustedNetworks: []netip.Prefix{relay}, RelayDomains: submission.NewDomains([]string{"in.example"}),
		Login: submission.LoginOptional, Auth: auth.Policy{InsecureAuth: true},
	}
	full := "Return-Path: <x@y.example>\r\n" +
		"Authentication-Results: mx.test; spf=pass smtp.mailfrom=bank.example\r\n" +
		"authentication-results : (c) MX.Test\r\n 1; dkim=pass\r\n" +
		"Authentication-Results: other.example; dkim=pass reason=\"says mx.test\"\r\n" +
		"Received: from forged by mx.test; Mon, 1 Jan 2024 00:00:00 +0000\r\n" +
		"BCC: secret@far.example,\r\n\thidden@far.example\r\n" +
		"From: a@shop.example\r\n" +
		"Resent-Bcc: secret@far.example\r\n" +
		"Subject: Bcc: is not a field here\r\n" +
		"X-Odd :  kept  as it is \r\n" +
		"\r\nBcc: in the body\r\nAuthentication-Results: mx.test; x=y\r\n\r\n.. dots\r\n"
	const kept = "Authentication-Results: other.example; dkim=pass reason=\"says mx.test\"\r\n" +
		"Received: from forged by mx.test; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
	const rest = "Subject: Bcc: is not a field here\r\n" +
		"X-Odd :  kept  as it is \r\n" +
		"\r\nBcc: in the body\r\nAuthentication-Results: mx.test; x=y\r\n\r\n. dots\r\n"
	complete := "DATE: 1 Jan 24 00:00 UT\r\nmessage-id: <x@y>\r\nFrom: a@shop.example\r\n\r\nhi\r\n"
	for name, c := range map[string]struct {
		headers  submission.Headers
		from     string
		login    bool
		to       string
		in, want string
	}{
		"logged in": {login: true, from: "198.51.100.7", to: "u@far.example", in: full,
			want: "[trace]\r\n[date]\r\n[id]\r\n" + kept + "From: a@shop.example\r\n" + rest},
		"logged in, complete": {login: true, from: "198.51.100.7", to: "u@far.example", in: complete, want: "[trace]\r\n" + complete},
		"logged in, no header": {login: true, from: "198.51.100.7", to: "u@far.example", in: "\r\njust text\r\n",
			want: "[trace]\r\n[date]\r\n[id]\r\n\r\njust text\r\n"},
		"logged in, header alone": {login: true, from: "198.51.100.7", to: "u@far.example", in: "Bcc: x@y.example\r\nSubject: x\r\n",
			want: "[trace]\r\n[date]\r\n[id]\r\nSubject: x\r\n"},
		"logged in, left alone": {headers: submission.HeadersRelay, login: true, from: "198.51.100.7", to: "u@far.example",
			in: full, want: "[trace]\r\n" + strings.Replace(full, ".. dots", ". dots", 1)},
		"trusted": {from: "10.0.0.1", to: "u@far.example", in: full, want: "[trace]\r\n" + strings.Replace(full, ".. dots", ". dots", 1)},
		"trusted, put in order": {headers: submission.HeadersSubmission, from: "10.0.0.1", to: "u@far.example", in: full,
			want: "[trace]\r\n[date]\r\n[id]\r\n" + kept + "From: a@shop.example\r\n" + rest},
		"trusted, no header to put in order": {headers: submission.HeadersSubmission, from: "10.0.0.1", to: "u@far.example",
			in: "no field\r\n\r\nx\r\n", want: "[trace]\r\nno field\r\n\r\nx\r\n"},
		"from outside": {from: "198.51.100.7", to: "u@in.example", in: full,
			want: "[trace]\r\nReturn-Path: <x@y.example>\r\n" + kept + "BCC: secret@far.example,\r\n\thidden@far.example\r\nFrom: a@shop.example\r\n" +
				"Resent-Bcc: secret@far.example\r\n" + rest},
		"from outside, complete": {headers: submission.HeadersSubmission, from: "198.51.100.7", to: "u@in.example",
			in: "Subject: x\r\n\r\nhi\r\n", want: "[trace]\r\nSubject: x\r\n\r\nhi\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := policy
			p.Headers = c.headers
			f := newFront(t, frontOptions{policy: p})
			cl := f.connect(c.from)
			if c.login {
				if r := cl.login("app", password); r[0] != '2' {
					t.Fatal(r)
				}
			}
			if r := cl.send("a@shop.example", strings.TrimSuffix(c.in, "\r\n"), c.to); r[:3] != "250" {
				t.Fatal(r)
			}
			m, text := f.last()
			if diff := cmp.Diff(c.want, masked(t, text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if m.Size != int64(len(text)) {
				t.Errorf("size %d of %d", m.Size, len(text))
			}
			if strings.Contains(c.want, "[id]") != (m.MessageID != "" && strings.HasSuffix(m.MessageID, "@mx.test>")) {
				t.Errorf("message id %q", m.MessageID)
			}
		})
	}
}

// TestLargeHeaderIsEdited: a header that spans pieces of memory is edited like any other.
func TestLargeHeaderIsEdited(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}}})
	cl := f.connect("198.51.100.7")
	cl.login("app", password)
	var header strings.Builder
	for range 2000 {
		header.WriteString("X-Filler: " + strings.Repeat("x", 60) + "\r\n")
	}
	text := "Bcc: a@b.example\r\n" + header.String() + "Bcc: c@d.example\r\n\r\nBcc: body\r\n"
	if r := cl.send("a@shop.example", strings.TrimSuffix(text, "\r\n"), "u@far.example"); r[:3] != "250" {
		t.Fatal(r)
	}
	_, got := f.last()
	if want := "[trace]\r\n[date]\r\n[id]\r\n" + header.String() + "\r\nBcc: body\r\n"; masked(t, got) != want {
		t.Errorf("%d octets, want %d", len(got), len(want))
	}
}

// TestI7 is I-7: a login name cannot break the trace or the log.
func TestI7(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}}})
	cl := f.connect("198.51.100.7")
	cl.ask("EHLO x);by\x1b[31m")
	cl.login("app", password)
	if r := cl.send("a@shop.example", "From: a@shop.example\r\n\r\nhi", "u@far.example"); r[:3] != "250" {
		t.Fatal(r)
	}
	if _, text := f.last(); strings.ContainsAny(text, "\x1b") || !strings.HasPrefix(text, "Received: from app.test (") {
		t.Errorf("%q", text)
	}
}
