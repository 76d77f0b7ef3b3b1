package reports

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/delivery/tlspolicy"
	"github.com/godwit-mta/godwit/mailauth/enclosure"
	"github.com/godwit-mta/godwit/mailauth/tlsrpt"
	"github.com/godwit-mta/godwit/smtp"
)

func result(domain string, fail tlspolicy.FailureType) tlspolicy.Result {
	r := tlspolicy.Result{
		Domain: domain, Policy: tlspolicy.KindSTS, Strings: []string{"version: STSv1", "mode: enforce"}, Patterns: []string{"*." + domain},
		Source: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("198.51.100.7"), Host: "mx." + domain, Hello: "mx." + domain,
	}
	if fail != "" {
		r.Failure = &tlspolicy.Failure{Type: fail, Detail: "expired yesterday"}
	}
	return r
}

func reportOf(t *testing.T, message string) *tlsrpt.Report {
	t.Helper()
	var rep *tlsrpt.Report
	err := enclosure.FromMessage(strings.NewReader(message), enclosure.Limits{}, func(d *enclosure.Document) (err error) {
		rep, err = tlsrpt.Parse(d)
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, message)
	}
	return rep
}

// TestDay follows sessions of one day to the report that tells of them.
func TestDay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1; rua=mailto:tls@rcpt.test,https://rcpt.test/report"}
		start := time.Now().UTC() // midnight, in a bubble
		for range 5 {
			w.Record(result("rcpt.test", ""))
		}
		w.Record(result("rcpt.test", tlspolicy.CertificateExpired))
		w.Record(result("rcpt.test", tlspolicy.CertificateExpired))
		w.Record(result("silent.test", tlspolicy.CertificateExpired))
		time.Sleep(20 * time.Minute)
		if got := w.keys(openPrefix); len(got) != 1 || !strings.HasSuffix(got[0], "/rcpt.test") {
			t.Fatalf("written down: %q, want rcpt.test alone, which wants reports", got)
		}
		w.stop()
		w.start() // a restart loses nothing that was written down
		w.Record(result("rcpt.test", ""))

		time.Sleep(24*time.Hour - time.Since(start))
		if n := len(w.sentMails()); n != 0 {
			t.Fatalf("%d reports before the day was over", n)
		}
		time.Sleep(5 * time.Hour)
		mails := w.sentMails()
		if len(mails) != 1 || len(w.sentPosts()) != 1 {
			t.Fatalf("%d mails, %d posts, want one each", len(mails), len(w.sentPosts()))
		}
		m := mails[0]
		if m.m.Recipients[0].Path != (smtp.Path{Local: "tls", Domain: "rcpt.test"}) || m.m.Recipients[0].Notify != smtp.NotifyNever {
			t.Errorf("recipient %+v", m.m.Recipients[0])
		}
		if m.m.Protocol != Protocol || m.m.From.Path.String() != "reports@sender.test" || m.m.Size != int64(len(m.data)) {
			t.Errorf("message %+v", m.m)
		}
		for _, want := range []string{"DKIM-Signature: v=1; d=sender.test", "TLS-Required: No\r\n", "TLS-Report-Domain: rcpt.test\r\n",
			"TLS-Report-Submitter: mta1.sender.test\r\n", "From: Sender <reports@sender.test>\r\n"} {
			if !strings.Contains(m.data, want) {
				t.Errorf("no %q in\n%s", want, m.data)
			}
		}
		rep := reportOf(t, m.data)
		if s := rep.Totals(); s.Successful != 6 || s.Failed != 2 {
			t.Errorf("totals %+v, want 6 and 2", s)
		}
		if !rep.Range.Start.Equal(start) || !rep.Range.End.Equal(start.Add(24*time.Hour-time.Second)) {
			t.Errorf("range %+v", rep.Range)
		}
		f := rep.Policies[0].Failures
		if len(f) != 1 || f[0].Sessions != 2 || f[0].Type != tlsrpt.CertificateExpired || f[0].ReceivingIP != "198.51.100.7" {
			t.Errorf("failures %+v", f)
		}
		p := w.sentPosts()[0]
		if p.url != "https://rcpt.test/report" || p.contentType != "application/tlsrpt+gzip" || !bytes.HasPrefix(p.body, []byte{0x1f, 0x8b}) {
			t.Errorf("post %+v", p)
		}
		if got := w.keys(openPrefix); len(got) != 0 {
			t.Errorf("still counted: %q", got)
		}
		list, err := w.Outgoing(t.Context(), 0)
		if err != nil || len(list.Sent) != 1 || list.Sent[0].State != "sent" || list.Sent[0].Failed != 2 || len(list.Sent[0].To) != 2 {
			t.Errorf("outgoing: %+v, %v", list, err)
		}
		time.Sleep(48 * time.Hour)
		if n := len(w.sentMails()); n != 1 {
			t.Errorf("%d mails in the end: a day without sessions has no report", n)
		}
		w.stop()
	})
}

// TestTries says how long a report is tried, and that what it reached is not told twice.
func TestTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Spread = -1 })
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test,https://rcpt.test/report"}
		w.postErr = errDown
		w.Record(result("rcpt.test", ""))
		time.Sleep(24*time.Hour + 12*time.Minute)
		if n := len(w.sentPosts()); n < 1 || len(w.sentMails()) != 1 {
			t.Fatalf("%d posts, %d mails", n, len(w.sentMails()))
		}
		time.Sleep(26 * time.Hour)
		n := len(w.sentPosts())
		if n < 8 || n > 15 || len(w.sentMails()) != 1 {
			t.Errorf("%d posts over a day, %d mails, want about ten and one", n, len(w.sentMails()))
		}
		time.Sleep(26 * time.Hour)
		if len(w.sentPosts()) != n {
			t.Errorf("tried after a day: %d posts became %d", n, len(w.sentPosts()))
		}
		list, err := w.Outgoing(t.Context(), 0)
		if err != nil || list.Sent[0].State != "sent" || list.Sent[0].To[1].State != "failed" || list.Sent[0].To[1].Problem != "down" {
			t.Errorf("outgoing: %+v, %v", list, err)
		}
		w.stop()
	})
}

func TestNoKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Spread = -1 })
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test"}
		w.noKey = true
		w.Record(result("rcpt.test", ""))
		time.Sleep(25 * time.Hour)
		if n := len(w.sentMails()); n != 0 {
			t.Fatalf("%d reports went unsigned", n)
		}
		if f := w.Findings(); len(f) != 1 || !strings.Contains(f[0].Problem, "no key") {
			t.Errorf("findings %+v", f)
		}
		w.set(func() { w.noKey = false })
		time.Sleep(5 * time.Hour)
		if n := len(w.sentMails()); n != 1 || len(w.Findings()) != 0 {
			t.Errorf("%d reports once there is a key, findings %+v", n, w.Findings())
		}
		w.stop()
	})
}

// TestDNSDown says that counts wait for DNS and are told later.
func TestDNSDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Spread = -1 })
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test"}
		w.dnsDown = true
		w.Record(result("rcpt.test", ""))
		w.Record(result("silent.test", ""))
		time.Sleep(25 * time.Hour)
		w.set(func() { w.dnsDown = false })
		time.Sleep(5 * time.Hour)
		if n := len(w.sentMails()); n != 1 {
			t.Errorf("%d reports, want one", n)
		}
		list, err := w.Outgoing(t.Context(), 0)
		if err != nil || len(list.Sent) != 2 || list.Sent[1].State != "unwanted" {
			t.Errorf("outgoing: %+v, %v", list, err)
		}
		w.stop()
	})
}

func TestSendToday(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test"}
		w.Record(result("rcpt.test", tlspolicy.STARTTLSNotSupported))
		time.Sleep(10 * time.Minute)
		dry, err := w.Send(t.Context(), api.SendReports{DryRun: true})
		if err != nil || len(dry.Sent) != 1 || dry.Sent[0].State != "counting" || !bytes.Contains(dry.Sent[0].Report, []byte("rcpt.test")) ||
			dry.Sent[0].To[0].URI != "mailto:tls@rcpt.test" {
			t.Fatalf("dry run: %+v, %v", dry, err)
		}
		if none, err := w.Send(t.Context(), api.SendReports{}); err != nil || len(none.Sent) != 0 {
			t.Fatalf("the day is not over: %+v, %v", none, err)
		}
		done, err := w.Send(t.Context(), api.SendReports{Today: true})
		if err != nil || len(done.Sent) != 1 || done.Sent[0].State != "sent" {
			t.Fatalf("sent: %+v, %v", done, err)
		}
		w.stop()
		w.start()
		w.Record(result("rcpt.test", ""))
		time.Sleep(30 * time.Hour)
		mails := w.sentMails()
		if len(mails) != 2 {
			t.Fatalf("%d reports, want one for each part of the day", len(mails))
		}
		first, second := reportOf(t, mails[0].data), reportOf(t, mails[1].data)
		if first.ID == second.ID || !second.Range.Start.After(first.Range.End) {
			t.Errorf("%+v and %+v", first, second)
		}
		if a, b := first.Totals(), second.Totals(); a.Failed != 1 || a.Successful != 0 || b.Successful != 1 || b.Failed != 0 {
			t.Errorf("totals %+v and %+v", a, b)
		}
		w.stop()
	})
}

// TestBounds floods the counts.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test"}
		for i := range 1000 {
			r := result("rcpt.test", tlspolicy.ValidationFailure)
			r.Failure.Detail = fmt.Sprint(i, strings.Repeat("x", 2000))
			w.Record(r)
		}
		for i := range maxDomains + 100 {
			w.Record(result(fmt.Sprintf("d%d.test", i), ""))
		}
		w.tallies.mu.Lock()
		c, n := *w.tallies.m[tallyKey{time.Now().UTC().Truncate(24 * time.Hour), "rcpt.test"}], len(w.tallies.m)
		w.tallies.mu.Unlock()
		if n != maxDomains || c.failures != maxFailures || c.policies[0].Summary.Failed != 1000 || !c.omitted {
			t.Errorf("%d domains, %d kinds of failures, summary %+v", n, c.failures, c.policies[0].Summary)
		}
		time.Sleep(time.Hour) // they are all asked about
		w.tallies.mu.Lock()
		octets := w.tallies.octets
		w.tallies.mu.Unlock()
		if octets > 200_000 {
			t.Errorf("%d octets counted after it was found out who wants reports", octets)
		}
		w.stop()
	})
}
