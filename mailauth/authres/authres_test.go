package authres

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	other "github.com/emersion/go-msgauth/authres"

	"github.com/godwit-mta/godwit/message"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	out, err := Append([]byte("kept"), "mx.example.net", []Result{
		{Method: "spf", Value: "pass", Comment: "192.0.2.1 is (one) of \\ them", Properties: []Property{{"smtp", "mailfrom", "ann@example.com"}}},
		{Method: "dkim", Value: "fail", Reason: `the "body" was changed`, Properties: []Property{{"header", "d", "example.com"}, {"header", "s", "s1"}, {"header", "b", "abc+/=xy"}}},
		{Method: "iprev", Value: "pass", Properties: []Property{{"policy", "iprev", "2001:db8::1"}}},
	})
	want := "keptAuthentication-Results: mx.example.net; spf=pass\r\n" +
		"\t(192.0.2.1 is ?one? of ? them) smtp.mailfrom=ann@example.com;\r\n" +
		"\tdkim=fail reason=\"the \\\"body\\\" was changed\" header.d=example.com\r\n" +
		"\theader.s=s1 header.b=\"abc+/=xy\"; iprev=pass policy.iprev=\"2001:db8::1\"\r\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	if out, err := Append(nil, "mx.example.net", nil); err != nil || string(out) != "Authentication-Results: mx.example.net; none\r\n" {
		t.Errorf("%v %q", err, out)
	}
	if v, err := Value("mx.example.net", []Result{{Method: "arc", Value: "none"}}); err != nil || v != "mx.example.net; arc=none" {
		t.Errorf("%v %q", err, v)
	}
}

func TestNotAppended(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id string
		r  Result
	}{
		"no id":            {"", Result{Method: "spf", Value: "pass"}},
		"id with more":     {"a; dkim=pass", Result{Method: "spf", Value: "pass"}},
		"method with more": {"a", Result{Method: "spf=pass; dkim", Value: "pass"}},
		"no value":         {"a", Result{Method: "spf"}},
		"value with more":  {"a", Result{Method: "spf", Value: "fail;"}},
		"property":         {"a", Result{Method: "spf", Value: "fail", Properties: []Property{{"a b", "c", "d"}}}},
	} {
		if out, err := Append([]byte("kept"), c.id, []Result{c.r}); !errors.Is(err, ErrWord) || string(out) != "kept" {
			t.Errorf("%s: %v %q", name, err, out)
		}
	}
	if _, err := Append(nil, "a", make([]Result, MaxResults+1)); err == nil {
		t.Error("too many results")
	}
}

func TestForged(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		" mx.example.net; spf=pass":                          true,
		" MX.EXAMPLE.NET.; spf=pass":                         true,
		" mx.example.net 1; spf=pass":                        true,
		" mx.example.net(c); spf=pass":                       true,
		"\r\n (a (nested) \\) one) mx.example.net; spf=pass": true,
		" \"mx.example.net\"; spf=pass":                      true,
		" \"mx.exa\\mple.net\"; spf=pass":                    true,
		" mx2; spf=pass":                                     true,
		" mx.example.net":                                    true,
		" (never closed mx.example.net; spf=pass":            true,
		" \"never closed mx.example.net; spf=pass":           true,
		" =mx.example.net; spf=pass":                         true,
		" mx.example.net=; spf=pass":                         true,
		" mx.example.net.evil.example; spf=pass":             false,
		" xmx.example.net; spf=pass":                         false,
		" other.example; x=mx.example.net":                   false,
		" (mx.example.net) other.example; spf=pass":          false,
		" (;) mx.example.net; spf=pass":                      true,
		" (\";) mx.example.net; spf=pass":                    true,
		" \";\" mx.example.net; spf=pass":                    true,
		" mx.example.net\x00; spf=pass":                      true,
		" mx.exa\x00mple.net; spf=pass":                      true,
		" mx.example .net; spf=pass":                         true,
		" mx.exam(c)ple.net; spf=pass":                       true,
		" mx.example.net/1; spf=pass":                        true,
		" mx.example.net-2; spf=pass":                        false,
		" other (of mx.example.net); spf=pass":               false,
		"":                                                   false, " ;": false,
	} {
		h, err := message.ParseHeader([]byte("authentication-results:" + value + "\r\nX: mx.example.net\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := Forged(h, "mx.example.net", "mx2"); (len(got) == 1) != want {
			t.Errorf("%q: %d forged", value, len(got))
		}
	}
}

// FuzzAppend: whatever texts hold, the field is one field with the results that were given, here and for another reader.
func FuzzAppend(f *testing.F) {
	f.Add("ann@example.com", "why", "who")
	f.Add("\"x\\\"; dkim=pass header.d=evil.example\r\nX: y", "\"; dkim=pass", ")\r\n\r\n; dkim=pass (")
	f.Fuzz(func(t *testing.T, value, reason, comment string) {
		out, err := Append(nil, "mx.example.net", []Result{
			{Method: "spf", Value: "fail", Reason: reason, Comment: comment, Properties: []Property{{"smtp", "mailfrom", value}}},
			{Method: "dmarc", Value: "fail", Properties: []Property{{"header", "from", value}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		h, err := message.ParseHeader(append(bytes.Clone(out), "\r\n"...))
		if err != nil || h.Len() != len(out)+2 {
			t.Fatalf("%v: %q", err, out)
		}
		n := 0
		for range h.Fields() {
			n++
		}
		if n != 1 || len(Forged(h, "mx.example.net")) != 1 {
			t.Fatalf("%d fields: %q", n, out)
		}
		// Outside quotes and comments there are two results.
		if got := strings.Count(bare(string(out)), "="); got > 5 {
			t.Fatalf("%d equal signs: %q", got, out)
		}
		if strings.ContainsAny(value+reason+comment, ";\"()\\=") {
			return // the other reader splits at them within quotes
		}
		v, _ := h.Get(FieldName)
		id, list, err := other.Parse(string(v))
		if err != nil || id != "mx.example.net" || len(list) != 2 {
			t.Fatalf("%v %q %d: %q", err, id, len(list), out)
		}
	})
}

// bare returns what is outside quotes and comments.
func bare(s string) string {
	var b strings.Builder
	in := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case in == '"' && c == '\\':
			i++
		case in == '"' && c == '"', in == '(' && c == ')':
			in = 0
		case in == 0 && (c == '"' || c == '('):
			in = c
		case in == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func FuzzID(f *testing.F) {
	f.Add([]byte(` (c) "mx.example\.net" 1; none`))
	f.Add([]byte("mx;"))
	f.Fuzz(func(t *testing.T, value []byte) {
		if id, err := ID(value); err == nil && id == "" {
			t.Fatal("neither a name nor an error")
		}
	})
}
