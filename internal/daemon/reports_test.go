package daemon_test

import (
	"bytes"
	"io"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/mailauth/enclosure"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

const reportZones = `
rcpt.test. IN MX 10 mx.rcpt.test.
mx.rcpt.test. IN A 127.0.7.1
sink.test. IN MX 10 mx.sink.test.
mx.sink.test. IN A 127.0.7.2
_smtp._tls.rcpt.test. IN TXT "v=TLSRPTv1; rua=mailto:tls@sink.test,mailto:TLSrpt@own.test"
_smtp._tls.sink.test. IN TXT "v=TLSRPTv1; rua=mailto:tls@sink.test"
`

// reportWorld is a server that sends and takes in reports, with DKIM keys, before two mail hosts without STARTTLS.
func reportWorld(t *testing.T) *daemontest.World {
	t.Helper()
	w := daemontest.New(t, daemontest.Options{
		Zones: reportZones,
		Config: func(c *config.Config) {
			c.Reports.Organization, c.Reports.Contact = "Own", "postmaster@own.test"
			c.Reports.Addresses = []string{"tlsrpt@own.test", "dmarc@own.test"}
			c.Delivery.IdleTimeout = 50 * time.Millisecond
			l := config.DefaultListener()
			l.Name, l.Address, l.Limits = "outside", "127.0.0.1:0", c.Limits
			c.Listeners = append(c.Listeners, l)
		},
	})
	w.Host("127.0.7.1", smtptest.Script{})
	w.Host("127.0.7.2", smtptest.Script{})
	w.Start()
	made, err := w.Client().CreateDKIMKeys(t.Context(), api.NewDKIMKeys{Domain: "own.test"})
	if err != nil {
		t.Fatal(err)
	}
	zones := reportZones
	for _, k := range made.Keys {
		zones += k.Record.Zone + "\n"
	}
	if err := w.DNS.Set(zones); err != nil {
		t.Fatal(err)
	}
	w.Until("the keys sign", func() bool {
		list, err := w.Client().CheckDKIMKeys(t.Context(), "own.test", "")
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Keys) == 2 && !slices.ContainsFunc(list.Keys, func(k api.DKIMKey) bool { return k.State != "signing" })
	})
	return w
}

// TestTLSReport follows a session without TLS to the report of it, which arrives elsewhere and here, signed.
func TestTLSReport(t *testing.T) {
	t.Parallel()
	w := reportWorld(t)
	w.Submit("me@app.test", "Subject: one\r\n\r\nhi\r\n", "you@rcpt.test")
	w.WaitEmpty()
	dry, err := w.Client().SendReports(t.Context(), api.SendReports{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(dry.Sent) != 1 || dry.Sent[0].Domain != "rcpt.test" || dry.Sent[0].Failed != 1 || len(dry.Sent[0].To) != 2 {
		t.Fatalf("dry run: %+v", dry)
	}
	sent, err := w.Client().SendReports(t.Context(), api.SendReports{Today: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent.Sent) != 1 || sent.Sent[0].State != "sent" {
		t.Fatalf("sent: %+v", sent)
	}
	w.WaitEmpty()

	var arrived *smtptest.Received
	for _, r := range w.Received() {
		if len(r.Recipients) == 1 && strings.Contains(string(r.Body), "TLS-Report-Domain: rcpt.test") {
			arrived = r
		}
	}
	if arrived == nil {
		t.Fatal("no report arrived at the sink")
	}
	if !bytes.Contains(arrived.Body, []byte("DKIM-Signature:")) || !bytes.Contains(arrived.Body, []byte("d=own.test")) {
		t.Errorf("not signed:\n%s", arrived.Body)
	}
	if h := bytes.ToLower(arrived.Body); !bytes.Contains(h, []byte("tls-report-domain:tls-report-submitter")) {
		t.Errorf("its own fields are not signed:\n%s", arrived.Body)
	}
	err = enclosure.FromMessage(bytes.NewReader(arrived.Body), enclosure.Limits{}, func(d *enclosure.Document) error {
		rep, err := tlsrpt.Parse(d)
		if err == nil && (rep.Totals() != tlsrpt.Summary{Failed: 1} || rep.Policies[0].Failures[0].Type != tlsrpt.StartTLSNotSupported) {
			t.Errorf("report %+v", rep)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	// The other copy came to this server itself, and it read it.
	list, err := w.Client().Reports(t.Context(), api.ReportQuery{Kind: "tls"})
	if err != nil || len(list.Reports) != 1 {
		t.Fatalf("taken in: %+v, %v", list, err)
	}
	if r := list.Reports[0]; r.Domain != "rcpt.test" || r.Failed != 1 || !slices.Equal(r.SignedBy, []string{"own.test"}) || r.Organization != "Own" {
		t.Errorf("taken in: %+v", r)
	}
	sum, err := w.Client().ReportSummary(t.Context(), api.ReportSummaryQuery{Domain: "rcpt.test"})
	if err != nil || len(sum.Domains) != 1 || sum.Domains[0].TLS == nil {
		t.Fatalf("summary: %+v, %v", sum, err)
	}
	if f := sum.Domains[0].TLS.Failures; len(f) != 1 || f[0].Type != "starttls-not-supported" || f[0].Sessions != 1 {
		t.Errorf("summary: %+v", sum.Domains[0].TLS)
	}
	if n := countEvents(w, event.ReportReceived); n != 1 {
		t.Errorf("%d events of reports taken in", n)
	}

	// The session that carried the report is told nobody: sink.test asks for reports, too.
	dry, err = w.Client().SendReports(t.Context(), api.SendReports{DryRun: true})
	if err != nil || len(dry.Sent) != 0 {
		t.Errorf("a report about a report: %+v, %v", dry, err)
	}
	// Mail that is none is told, once it does not come over a session that a report had opened.
	w.Until("a session is counted", func() bool {
		w.Submit("me@app.test", "Subject: two\r\n\r\nhi\r\n", "you@sink.test")
		w.WaitEmpty()
		dry, err = w.Client().SendReports(t.Context(), api.SendReports{DryRun: true})
		return err != nil || len(dry.Sent) > 0
	})
	if err != nil || len(dry.Sent) != 1 || dry.Sent[0].Domain != "sink.test" {
		t.Errorf("%+v, %v", dry, err)
	}
}

func countEvents(w *daemontest.World, typ event.Type) (n int) {
	w.Until("the event is told", func() bool {
		n = 0
		for _, e := range w.Events() {
			if e.Type == typ {
				n++
			}
		}
		return n > 0
	})
	return n
}

const dmarcReport = `<?xml version="1.0"?><feedback><report_metadata><org_name>Reporter</org_name><report_id>77</report_id>` +
	`<date_range><begin>1795219200</begin><end>1795305599</end></date_range></report_metadata><policy_published><domain>own.test</domain>` +
	`<p>reject</p></policy_published><record><row><source_ip>192.0.2.9</source_ip><count>4</count><policy_evaluated>` +
	`<disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>own.test</header_from>` +
	`</identifiers></record></feedback>`

// TestReportFromStranger sends reports, and what is none, from outside to the addresses, one of them beside another recipient.
func TestReportFromStranger(t *testing.T) {
	t.Parallel()
	w := reportWorld(t)
	outside := func(from, message string, to ...string) error {
		nc, err := net.Dial("tcp", w.AddressOf("outside"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := smtp.NewClient(nc, "mx.reporter.test")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Mail(from); err != nil {
			return err
		}
		for _, a := range to {
			if err := c.Rcpt(a); err != nil {
				return err
			}
		}
		d, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(d, message); err != nil {
			return err
		}
		return d.Close()
	}
	report := "From: reporter@reporter.test\r\nSubject: report\r\nContent-Type: text/xml\r\n\r\n" + dmarcReport + "\r\n"
	if err := outside("r@reporter.test", report, "DMARC@own.test"); err != nil {
		t.Fatal(err)
	}
	if err := outside("r@reporter.test", report, "dmarc@own.test"); err != nil { // again: nothing new
		t.Fatal(err)
	}
	if err := outside("spam@elsewhere.test", "Subject: buy\r\n\r\nnow\r\n", "dmarc@own.test"); err != nil {
		t.Fatal(err)
	}
	if err := outside("spam@elsewhere.test", "Subject: buy\r\n\r\nnow\r\n", "postmaster@own.test"); err == nil {
		t.Error("mail to another address was taken")
	}
	// A client of our own sends a copy to somebody else, who gets it.
	w.Submit("me@app.test", strings.Replace(report, "<report_id>77", "<report_id>78", 1), "dmarc@own.test", "you@sink.test")
	w.WaitEmpty()
	list, err := w.Client().Reports(t.Context(), api.ReportQuery{Domain: "own.test"})
	if err != nil || len(list.Reports) != 2 || list.Reports[0].Total != 4 || list.Reports[0].Failed != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	shown, err := w.Client().Report(t.Context(), list.Reports[0].ID)
	if err != nil || shown.DMARC == nil || len(shown.DMARC.Rows) != 1 || shown.DMARC.Rows[0].Source != "192.0.2.9" {
		t.Errorf("%+v, %v", shown, err)
	}
	unread, err := w.Client().UnreadReports(t.Context())
	if err != nil || len(unread.Unread) != 1 || unread.Unread[0].Sender != "spam@elsewhere.test" || !strings.Contains(unread.Unread[0].Sample, "buy") {
		t.Errorf("%+v, %v", unread, err)
	}
	got := w.Received()
	if len(got) != 1 || !strings.Contains(string(got[0].Body), "report_id>78") {
		t.Errorf("%d messages arrived elsewhere, want the copy alone: nobody is told of what could not be read", len(got))
	}
	imported, err := w.Client().ImportReport(t.Context(), "r.xml", []byte(strings.Replace(dmarcReport, "<report_id>77", "<report_id>79", 1)))
	if err != nil || len(imported.Reports) != 1 {
		t.Errorf("imported: %+v, %v", imported, err)
	}
	if _, err := w.Client().ImportReport(t.Context(), "r.txt", []byte("nothing")); err == nil || !strings.Contains(err.Error(), "no report") {
		t.Errorf("imported nothing: %v", err)
	}
	w.Stop()
	w.Start()
	again, err := w.Client().ReportSummary(t.Context(), api.ReportSummaryQuery{Since: time.Unix(1795219200, 0)})
	if err != nil || len(again.Domains) != 1 || again.Domains[0].DMARC.Messages != 12 || again.Domains[0].DMARC.Sources[0].DKIM != 12 {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}
