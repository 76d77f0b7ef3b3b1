package reports

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp"
)

// dmarc makes a report on a domain with rows of "address count dkim spf disposition".
func dmarc(org, id, domain string, day int, rows ...string) string {
	begin := time.Date(2000, 1, day, 0, 0, 0, 0, time.UTC).Unix()
	var b strings.Builder
	fmt.Fprintf(&b, `<feedback><report_metadata><org_name>%s</org_name><report_id>%s</report_id><date_range><begin>%d</begin><end>%d</end>`+
		`</date_range></report_metadata><policy_published><domain>%s</domain><p>reject</p></policy_published>`, org, id, begin, begin+86399, domain)
	for _, row := range rows {
		f := strings.Fields(row)
		fmt.Fprintf(&b, `<record><row><source_ip>%s</source_ip><count>%s</count><policy_evaluated><disposition>%s</disposition><dkim>%s</dkim>`+
			`<spf>%s</spf></policy_evaluated></row><identifiers><header_from>%s</header_from></identifiers></record>`, f[0], f[1], f[4], f[2], f[3], domain)
	}
	return b.String() + "</feedback>"
}

func (w *world) take(message string) Taken {
	w.t.Helper()
	b := smtp.BodyOf([]byte(message))
	defer b.Release()
	t, err := w.Take(w.t.Context(), &Incoming{
		Message: "m1", Sender: "r@reporter.test", Recipient: "tlsrpt@sender.test", Received: time.Now(), Body: b,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func mailOf(xml string) string {
	return "From: r@reporter.test\r\nContent-Type: text/xml\r\n\r\n" + xml + "\r\n"
}

const tlsReport = `{"organization-name":"Org","report-id":"t1","date-range":{"start-datetime":"2000-01-02T00:00:00Z","end-datetime":"2000-01-02T23:59:59Z"},` +
	`"policies":[{"policy":{"policy-type":"sts","policy-domain":"Sender.test","mx-host":["mx.sender.test"]},` +
	`"summary":{"total-successful-session-count":7,"total-failure-session-count":5},"failure-details":[` +
	`{"result-type":"certificate-expired","receiving-mx-hostname":"MX.sender.test","sending-mta-ip":"192.0.2.1","failed-session-count":3}]}]}`

func TestTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Verify = func(context.Context, [][]byte) []string { return []string{"reporter.test"} }
		})
		first := mailOf(dmarc("Org", "1", "sender.test", 1, "192.0.2.1 10 pass fail none", "192.0.2.1 5 pass fail none", "192.0.2.2 3 fail fail reject"))
		got := w.take(first)
		if len(got.Reports) != 1 || got.Problem != "" {
			t.Fatalf("%+v", got)
		}
		if r := got.Reports[0]; r.Total != 18 || r.Failed != 3 || r.Domain != "sender.test" || len(r.SignedBy) != 1 || len(r.DMARC.Rows) != 2 {
			t.Errorf("%+v", r)
		}
		if again := w.take(strings.Replace(first, "<org_name>Org", "<org_name>ORG", 1)); again.Duplicates != 1 || len(again.Reports) != 0 {
			t.Errorf("again: %+v", again)
		}
		w.take(mailOf(dmarc("Org", "2", "sender.test", 2, "192.0.2.1 100 pass pass none", "2001:db8::1 1 fail pass quarantine")))
		w.take(mailOf(dmarc("Org", "2", "other.test", 2, "192.0.2.7 1 pass pass none")))
		if t2 := w.take("Content-Type: application/tlsrpt+json\r\n\r\n" + tlsReport); len(t2.Reports) != 1 || t2.Reports[0].TLS.More != 2 {
			t.Errorf("TLS: %+v", t2)
		}
		sum, err := w.Summary(t.Context(), api.ReportSummaryQuery{})
		if err != nil || len(sum.Domains) != 2 || sum.Domains[1].Domain != "sender.test" {
			t.Fatalf("%+v, %v", sum, err)
		}
		d := sum.Domains[1].DMARC
		if d.Reports != 2 || d.Messages != 119 || d.Passed != 116 || d.DKIM != 115 || d.SPF != 101 || len(d.Sources) != 3 {
			t.Errorf("%+v", d)
		}
		if s := d.Sources[0]; s != (api.DMARCSource{Source: "192.0.2.1", Messages: 115, Passed: 115, DKIM: 115, SPF: 100}) {
			t.Errorf("%+v", s)
		}
		if s := d.Sources[1]; s.Source != "192.0.2.2" || s.Refused != 3 || s.Passed != 0 {
			t.Errorf("%+v", s)
		}
		if tls := sum.Domains[1].TLS; tls.Successful != 7 || tls.Failed != 5 || tls.Failures[0] != (api.TLSFailure{Type: "certificate-expired", Host: "mx.sender.test", Sessions: 3}) {
			t.Errorf("%+v", tls)
		}
		list, err := w.List(t.Context(), api.ReportQuery{Kind: "dmarc", Limit: 2})
		if err != nil || len(list.Reports) != 2 || !list.More || list.Reports[0].Begin.Before(list.Reports[1].Begin) || list.Reports[0].DMARC != nil {
			t.Errorf("%+v, %v", list, err)
		}
		if since, err := w.List(t.Context(), api.ReportQuery{Since: time.Date(2000, 1, 2, 12, 0, 0, 0, time.UTC)}); err != nil || len(since.Reports) != 3 {
			t.Errorf("since: %+v, %v", since, err)
		}
		if _, err := w.Show(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if r, err := w.Show(t.Context(), list.Reports[0].ID[:8]); err != nil || r.DMARC == nil {
			t.Errorf("%+v, %v", r, err)
		}
		if len(w.events) != 4 || w.events[0].Type != event.ReportReceived || !strings.Contains(w.events[0].Explanation, "18 messages, 3 did not pass") {
			t.Errorf("%+v", w.events)
		}
		w.stop()
	})
}

// TestUnread says that what is no report is kept in part, and not more of it than a few.
func TestUnread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for i := range maxUnread + 10 {
			got := w.take(fmt.Sprintf("Subject: %d\r\nContent-Type: text/xml\r\n\r\n<feedback>\xff%s", i, strings.Repeat("x", 5000)))
			if got.Problem == "" {
				t.Fatalf("%+v", got)
			}
			time.Sleep(time.Second)
		}
		list, err := w.Unread(t.Context())
		if err != nil || len(list.Unread) != maxUnread {
			t.Fatalf("%d, %v", len(list.Unread), err)
		}
		if u := list.Unread[0]; !strings.HasPrefix(u.Sample, fmt.Sprintf("Subject: %d\r\n", maxUnread+9)) || len(u.Sample) > maxSample+10 || u.Sender != "r@reporter.test" {
			t.Errorf("%+v", u)
		}
		if len(w.events) != 0 {
			t.Errorf("events %+v", w.events)
		}
		w.stop()
	})
}

func TestTakeBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.MaxReports, o.MaxPerDay, o.Settings.Keep = 10, 15, 5*24*time.Hour })
		for i := range 20 {
			w.take(mailOf(dmarc("Org", fmt.Sprint(i), "sender.test", 1, "192.0.2.1 1 pass pass none")))
			time.Sleep(time.Minute)
		}
		if f := w.Findings(); len(f) != 1 || !strings.Contains(f[0].Problem, "dropped") {
			t.Errorf("%+v", f)
		}
		if n := len(w.keys(headPrefix)); n > 15 {
			t.Errorf("%d kept", n)
		}
		time.Sleep(3 * time.Hour)
		if heads, bodies := len(w.keys(headPrefix)), len(w.keys(bodyPrefix)); heads != 10 || bodies != 10 {
			t.Errorf("%d heads and %d bodies kept, want the latest 10", heads, bodies)
		}
		time.Sleep(24 * time.Hour)
		if got := w.take(mailOf(dmarc("Org", "late", "sender.test", 1, "192.0.2.1 1 pass pass none"))); len(got.Reports) != 1 || len(w.Findings()) != 0 {
			t.Errorf("the next day: %+v, %+v", got, w.Findings())
		}
		time.Sleep(5*24*time.Hour + 2*time.Hour)
		if n := len(w.keys("reports/in/")); n != 0 {
			t.Errorf("%d keys after their time", n)
		}
		// Rows beyond the bound are counted and not kept.
		rows := make([]string, maxRows+500)
		for i := range rows {
			rows[i] = fmt.Sprintf("10.0.%d.%d 2 pass pass none", i/256, i%256)
		}
		got := w.take(mailOf(dmarc("Org", "large", "sender.test", 1, rows...)))
		if r := got.Reports[0]; len(r.DMARC.Rows) != maxRows || r.DMARC.More != 1000 || r.Total != 2*int64(len(rows)) {
			t.Errorf("%d rows, %d more, %d", len(r.DMARC.Rows), r.DMARC.More, r.Total)
		}
		w.stop()
	})
}

// TestTakeFails says that a report is not lost when it cannot be kept.
func TestTakeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.store.fail(errDown)
		b := smtp.BodyOf([]byte(mailOf(dmarc("Org", "1", "sender.test", 1, "192.0.2.1 1 pass pass none"))))
		defer b.Release()
		in := &Incoming{Message: "m1", Body: b}
		if _, err := w.Take(t.Context(), in); !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
		w.store.fail(nil)
		if got, err := w.Take(t.Context(), in); err != nil || len(got.Reports) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.reading <- struct{}{}
		if _, err := w.Take(ctx, in); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		<-w.reading
		w.stop()
	})
}

func TestTakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for a, want := range map[string]bool{"tlsrpt@sender.test": true, "TLSRPT@sender.test": true, "tlsrpt@other.test": false, "x@sender.test": false} {
			local, domain, _ := strings.Cut(a, "@")
			if w.Takes(local, domain) != want {
				t.Errorf("%s: %v", a, !want)
			}
		}
		if err := w.SetSettings(Settings{}); err != nil || w.Takes("tlsrpt", "sender.test") {
			t.Error("a new configuration is not followed")
		}
		for _, bad := range []Settings{{Contact: "nobody"}, {Contact: "a@b.test, c@d.test"}, {Addresses: []smtp.Path{{Local: "a", Domain: "-"}}}} {
			if w.SetSettings(bad) == nil {
				t.Errorf("%+v is taken", bad)
			}
		}
		w.stop()
	})
}

// TestStoreFails says that counts outlive a store that fails for a while.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Spread = -1 })
		w.zones["_smtp._tls.rcpt.test"] = []string{"v=TLSRPTv1;rua=mailto:tls@rcpt.test"}
		w.Record(result("rcpt.test", ""))
		w.store.fail(errDown)
		time.Sleep(25 * time.Hour)
		if n := len(w.sentMails()); n != 0 {
			t.Fatalf("%d reports", n)
		}
		w.store.fail(nil)
		time.Sleep(time.Hour)
		mails := w.sentMails()
		if len(mails) != 1 {
			t.Fatalf("%d reports", len(mails))
		}
		if s := reportOf(t, mails[0].data).Totals(); s.Successful != 1 {
			t.Errorf("%+v", s)
		}
		w.stop()
	})
}
