package submission_test

import (
	"net/netip"
	"testing"

	"github.com/godwit-mta/godwit/internal/submission"
)

// TestTLSRequiredField is the header field of RFC 8689, 3.
func TestTLSRequiredField(t *testing.T) {
	t.Parallel()
	policy := submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for field, want := range map[string]bool{
		"":                                   false,
		"TLS-Required: No\r\n":               true,
		"tls-required:no\r\n":                true,
		"TLS-Required: No (really)\r\n":      true,
		"TLS-Required:\r\n No\r\n":           true,
		"TLS-Required: Yes\r\n":              false,
		"TLS-Required: Not\r\n":              false,
		"TLS-Required:\r\n":                  false,
		"X-TLS-Requir: No\r\n":               false,
		"Subject: \r\n TLS-Required: No\r\n": false,
	} {
		f := newFront(t, frontOptions{policy: policy})
		if r := f.connect("10.0.0.1").send("a@shop.example", "From: a@shop.example\r\n"+field+"\r\nhi", "u@far.example"); r[:3] != "250" {
			t.Fatal(r)
		}
		if m, _ := f.last(); m.TLSOptional != want {
			t.Errorf("%q: TLSOptional is %v", field, m.TLSOptional)
		}
	}
}
