package authres

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]Result{
		" mx.example.net; none":    nil,
		" mx.example.net":          nil,
		" mx.example.net 1; none;": nil,
		` "mx.example.net" (c); spf=pass smtp.mailfrom=ann@example.com`: {
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "ann@example.com"}}},
		},
		" mx.google.example;\r\n       dkim=pass header.i=@example.com header.s=a header.b=\"Ab+/=\";\r\n" +
			"       spf=softfail (domain of ann@example.com; x) smtp.mailfrom=\"ann b\"@example.com;\r\n" +
			"       dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=example.com": {
			{Method: "dkim", Value: "pass", Properties: []Property{{"header", "i", "@example.com"}, {"header", "s", "a"}, {"header", "b", "Ab+/="}}},
			{Method: "spf", Value: "softfail", Properties: []Property{{"smtp", "mailfrom", "ann b@example.com"}}},
			{Method: "dmarc", Value: "pass", Properties: []Property{{"header", "from", "example.com"}}},
		},
		` m; DMARC/1=Pass action=none header.from=example.com; dkim = fail (a) reason = "it; is \"so\""`: {
			{Method: "dmarc", Value: "pass", Properties: []Property{{"header", "from", "example.com"}}},
			{Method: "dkim", Value: "fail", Reason: `it; is "so"`},
		},
	} {
		_, got, err := Parse([]byte(value))
		if err != nil {
			t.Errorf("%q: %v", value, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", value, diff)
		}
	}
	for _, value := range []string{
		"", "; spf=pass", " m; spf", " m; spf=", " m; =pass", " m; spf=pass smtp", " m; spf=pass smtp.=x", " m; spf=pass smtp.mailfrom=",
		" m; spf=pass (", " m; spf=pass smtp.mailfrom=\"x", " m; spf=pass smtp.mailfrom=a\x00b", " m; none dkim=pass", " m; spf=pass, dkim=pass",
		" m x y; spf=pass", " m; dkim=pass header.d=x\"; dmarc=pass",
	} {
		if id, got, err := Parse([]byte(value)); !errors.Is(err, ErrField) {
			t.Errorf("%q: %q %+v %v", value, id, got, err)
		}
	}
}

// FuzzParse: whatever was appended is read back, and nothing else is in it.
func FuzzParse(f *testing.F) {
	f.Add("ann@example.com", "why", " m; spf=pass smtp.mailfrom=x (c) reason=y")
	f.Add("\"x\\\"; dkim=pass header.d=evil.example\r\nX: y", "\"; dkim=pass", " m; a=b; c/1=d e.f=\"g\"@h")
	f.Fuzz(func(t *testing.T, value, reason, raw string) {
		if _, list, err := Parse([]byte(raw)); err == nil && len(list) > MaxResults {
			t.Fatalf("%d results", len(list))
		}
		in := []Result{
			{Method: "spf", Value: "fail", Reason: harmless(reason, ""), Properties: []Property{{"smtp", "mailfrom", harmless(value, "")}}},
			{Method: "dmarc", Value: "fail"},
		}
		out, err := Append(nil, "mx.example.net", in)
		if err != nil {
			t.Fatal(err)
		}
		id, got, err := Parse(out[len(FieldName)+1:])
		if err != nil || id != "mx.example.net" {
			t.Fatalf("%v %q: %q", err, id, out)
		}
		if diff := cmp.Diff(in, got); diff != "" {
			t.Fatalf("%q (-in +out):\n%s", out, diff)
		}
	})
}
