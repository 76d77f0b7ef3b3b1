package submission_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/smtp"
)

// TestReportAddresses says that strangers may send to the addresses for reports, to exactly these, and no large mail.
func TestReportAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, submission.Policy{
		TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, ReportSize: 1000,
		Reports: submission.NewAddresses([]smtp.Path{{Local: "TLSrpt", Domain: "app.test"}}),
	})
	stranger, friend := w.session("198.51.100.1"), w.session("192.0.2.1")
	from := smtp.Sender{Path: smtp.Path{Local: "noreply", Domain: "reporter.test"}}
	large := from
	large.Size = 1001
	long := "\r\n" + strings.Repeat("x\r\n", 500)
	for _, c := range []struct {
		what  string
		reply smtp.Reply
		want  int
	}{
		{"to the address", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt@app.test"), 250},
		{"in another case", w.send(stranger, from, "\r\nhi\r\n", "TLSRPT@APP.test"), 250},
		{"to a neighbour", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt2@app.test"), 550},
		{"to a detail of it", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt+x@app.test"), 550},
		{"to another domain", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt@other.test"), 550},
		{"to both", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt@app.test", "you@other.test"), 550},
		{"declared too large", w.send(stranger, large, "\r\nhi\r\n", "tlsrpt@app.test"), 552},
		{"too large", w.send(stranger, from, long, "tlsrpt@app.test"), 552},
		{"too large, of a friend", w.send(friend, from, long, "tlsrpt@app.test"), 250},
		{"small again", w.send(stranger, from, "\r\nhi\r\n", "tlsrpt@app.test"), 250},
	} {
		if c.reply.Code != c.want {
			t.Errorf("%s: %v, want %d", c.what, c.reply, c.want)
		}
	}
}
