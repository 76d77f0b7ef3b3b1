package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mox "github.com/mjl-/mox/tlsrpt"

	"github.com/godwit-mta/godwit/mailauth/enclosure"
	"github.com/godwit-mta/godwit/message"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	mail := func(list ...string) (d []Destination) {
		for _, a := range list {
			d = append(d, Destination{Address: a})
		}
		return d
	}
	for _, c := range []struct {
		txts []string
		want []Destination
		none bool
	}{
		{txts: []string{"v=TLSRPTv1; rua=mailto:reports@example.com"}, want: mail("reports@example.com")},
		{txts: []string{"v=TLSRPTv1;rua=mailto:a@b.test;"}, want: mail("a@b.test")},
		{txts: []string{"v=TLSRPTv1 ; rua=mailto:a@b.test , mailto:c@d.test ; x-y=z"}, want: mail("a@b.test", "c@d.test")},
		{txts: []string{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"}, want: []Destination{{URL: "https://reporting.example.com/v1/tlsrpt"}}},
		{txts: []string{"v=TLSRPTv1; rua=mailto:a%2Cb@c.test,HTTPS://x.test/"}, want: nil}, // a comma must be quoted in an address
		{txts: []string{"v=TLSRPTv1; rua=mailto:a%2Bb@c.test"}, want: mail("a+b@c.test")},
		{txts: []string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b.test"}, want: mail("a@b.test")},
		{txts: []string{"v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"}, none: true},
		{txts: []string{"v=TLSRPTv2; rua=mailto:a@b.test"}, none: true},
		{txts: []string{"v=TLSRPTv11; rua=mailto:a@b.test"}, none: true},
		{txts: []string{" v=TLSRPTv1; rua=mailto:a@b.test"}, none: true},
		{txts: nil, none: true},
		{txts: []string{"v=TLSRPTv1"}},
		{txts: []string{"v=TLSRPTv1; rua="}},
		{txts: []string{"v=TLSRPTv1; rua=ftp://x.test/,mailto:,mailto:a,http://x.test/,https:///x,https://u:p@x.test/"}},
		{txts: []string{"v=TLSRPTv1; rua=mailto:a@b.test?subject=x"}, want: mail("a@b.test")},
		{txts: []string{"v=TLSRPTv1; rua=mailto:a@b.test%0d%0aBcc:x@y.test"}},
		{txts: []string{"v=TLSRPTv1; rua=mailto:A%20B%20%3Ca@b.test%3E"}},
		{txts: []string{"v=TLSRPTv1; rua=mailto:a@b.test%2Cc@d.test"}},
		{txts: []string{"v=TLSRPTv1; nonsense; rua=mailto:a@b.test"}},
		{txts: []string{"v=TLSRPTv1 x; rua=mailto:a@b.test"}},
	} {
		rec, err := ParseRecord(c.txts)
		switch {
		case c.none:
			if !errors.Is(err, ErrNoRecord) {
				t.Errorf("%q: %v, %v, want no record", c.txts, rec, err)
			}
		case c.want == nil && strings.Contains(c.txts[0], "HTTPS"):
			if err != nil || len(rec.Destinations) != 1 || rec.Destinations[0].URL != "https://x.test/" {
				t.Errorf("%q: %v, %v", c.txts, rec, err)
			}
		case c.want == nil:
			if err == nil || errors.Is(err, ErrNoRecord) {
				t.Errorf("%q: %v, %v, want an error", c.txts, rec, err)
			}
		case err != nil || cmp.Diff(rec.Destinations, c.want) != "":
			t.Errorf("%q: %v, %v, want %v", c.txts, rec, err, c.want)
		}
		if err != nil {
			continue
		}
		for _, d := range rec.Destinations {
			if ParseDestination(d.String()) != d {
				t.Errorf("%q does not come back", d)
			}
		}
	}
	many := "v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@b.test,", 1000)
	if rec, err := ParseRecord([]string{many}); err != nil || len(rec.Destinations) != MaxDestinations {
		t.Errorf("many destinations: %v", err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParse(t *testing.T) {
	t.Parallel()
	day := func(s string) DateRange {
		start, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return DateRange{start, start.Add(24*time.Hour - time.Second)}
	}
	for name, want := range map[string]*Report{
		"rfc8460-b.json": {
			Organization: "Company-X", Range: day("2016-04-01"), Contact: "sts-reporting@company-x.example",
			ID: "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
			Policies: []Policy{{
				Policy: PolicyDescription{
					Type: STS, Strings: []string{"version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"},
					Domain: "company-y.example", Hosts: []string{"*.mail.company-y.example"},
				},
				Summary: Summary{5326, 303},
				Failures: []Failure{
					{Type: CertificateExpired, SendingIP: "2001:db8:abcd:0012::1", Host: "mx1.mail.company-y.example", Sessions: 100},
					{Type: StartTLSNotSupported, SendingIP: "2001:db8:abcd:0013::1", Host: "mx2.mail.company-y.example",
						ReceivingIP: "203.0.113.56", Sessions: 200, Information: "https://reports.company-x.example/report_info ? id = " +
							"5065427 c - 23 d3# StarttlsNotSupported "},
					{Type: ValidationFailure, SendingIP: "198.51.100.62", ReceivingIP: "203.0.113.58",
						Host: "mx-backup.mail.company-y.example", Sessions: 3, Reason: "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"},
				},
			}},
		},
		"google.json": {
			Organization: "Google Inc.", Range: day("2026-09-15"), Contact: "smtp-tls-reporting@google.com",
			ID: "2026-09-15T00:00:00Z_example.com",
			Policies: []Policy{{
				Policy: PolicyDescription{
					Type: STS, Strings: []string{"version: STSv1", "mode: enforce", "mx: mx1.example.com", "max_age: 86400"},
					Domain: "example.com", Hosts: []string{"mx1.example.com"},
				},
				Summary: Summary{10, 3},
				Failures: []Failure{
					{Type: ValidationFailure, SendingIP: "209.85.222.201", ReceivingIP: "203.0.113.9", Host: "mx1.example.com", Sessions: 1},
					{Type: ValidationFailure, SendingIP: "209.85.208.176", ReceivingIP: "203.0.113.9", Host: "mx1.example.com", Sessions: 2},
				},
			}},
		},
		"microsoft.json": {
			Organization: "Microsoft Corporation", Range: day("2026-02-01"), Contact: "tlsrpt-noreply@microsoft.com",
			ID:       "134567890123456789+example.com",
			Policies: []Policy{{Policy: PolicyDescription{Type: TLSA, Domain: "example.com"}, Summary: Summary{47, 0}}},
		},
	} {
		got, err := Parse(bytes.NewReader(read(t, name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
		p, err := got.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(bytes.NewReader(p))
		if err != nil || cmp.Diff(got, again) != "" {
			t.Errorf("%s: written and read again it differs: %v\n%s", name, err, cmp.Diff(got, again))
		}
	}
}

// TestNotAReport is not parallel: it looks at memory.
func TestNotAReport(t *testing.T) {
	head := `{"report-id":"1","date-range":{"start-datetime":"2026-01-01T00:00:00Z","end-datetime":"2026-01-02T00:00:00Z"},`
	for name, text := range map[string]string{
		"nothing": "", "another thing": `{"a":1}`, "a list": `[]`, "a number": `5`, "no id": strings.Replace(head, `"report-id":"1",`, "", 1) + `"x":1}`,
		"no time":           `{"report-id":"1","policies":[]}`,
		"time backwards":    strings.Replace(head, "2026-01-02", "2025-01-02", 1) + `"policies":[]}`,
		"cut off":           head + `"policies":[{"policy":{`,
		"policies no list":  head + `"policies":"x"}`,
		"deep":              head + `"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
		"many policies":     head + `"policies":[` + strings.Repeat("{},", MaxPolicies) + `{}]}`,
		"many failures":     head + `"policies":[` + strings.Repeat(`{"failure-details":[`+strings.Repeat("{},", 9999)+`{}]},`, 6) + `{}]}`,
		"many strings":      head + `"policies":[{"policy":{"mx-host":[` + strings.Repeat(`"",`, MaxStrings) + `""]}}]}`,
		"text that is none": head + `"organization-name":{}}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if r, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read as %+v", name, r)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
			t.Errorf("%s: %d MiB allocated", name, got>>20)
		}
	}
	// Odd values that are read all the same.
	r, err := Parse(strings.NewReader(head + `"x":{"y":[1,{"z":null}]},"organization-name":5,"contact-info":null,"policies":[` +
		`{"summary":{"total-successful-session-count":-5,"total-failure-session-count":1e400}},` +
		`{"summary":{"total-successful-session-count":99999999999999999999}}]}`))
	if err != nil || r.Organization != "5" || len(r.Policies) != 2 || r.Totals() != (Summary{}) {
		t.Errorf("%+v, %v", r, err)
	}
	long := head + `"organization-name":"` + strings.Repeat("é", 5000) + `","policies":[]}`
	if r, err := Parse(strings.NewReader(long)); err != nil || len(r.Organization) > maxText || !strings.HasSuffix(r.Organization, "é") {
		t.Errorf("a long name: %d octets, %v", len(r.Organization), err)
	}
}

func example() *Mail {
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	return &Mail{
		Report: &Report{
			Organization: "Beispiel GmbH", Contact: "postmaster@sender.test", ID: "20261121T000000Z.rcpt.test@mta1.sender.test",
			Range: DateRange{start, start.Add(24*time.Hour - time.Second)},
			Policies: []Policy{{
				Policy:   PolicyDescription{Type: STS, Domain: "rcpt.test", Strings: []string{"version: STSv1"}, Hosts: []string{"*.rcpt.test"}},
				Summary:  Summary{10, 2},
				Failures: []Failure{{Type: CertificateExpired, Host: "mx.rcpt.test", ReceivingIP: "192.0.2.1", Sessions: 2, Reason: "<&>"}},
			}},
		},
		Domain: "rcpt.test", Submitter: "mta1.sender.test", From: message.Address{Name: "Beispiel Größe", Local: "postmaster", Domain: "sender.test"},
		To: "tls@rcpt.test", MessageID: "20261121T000000Z.rcpt.test@mta1.sender.test", Date: start.Add(26 * time.Hour),
		Rand: bytes.NewReader(make([]byte, 100)),
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	m := example()
	p, err := m.Compose()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(p) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 200 {
			t.Errorf("line %q", line)
		}
		for _, c := range line {
			if c >= 0x80 {
				t.Fatalf("%q is not 7-bit", line)
			}
		}
	}
	want := "mta1.sender.test!rcpt.test!1795219200!1795305599.json.gz"
	if got := m.Report.FileName("mta1.sender.test", "rcpt.test"); got != want {
		t.Errorf("file name %q, want %q", got, want)
	}
	for _, s := range []string{want, "TLS-Report-Domain: rcpt.test\r\n", "TLS-Report-Submitter: mta1.sender.test\r\n", "TLS-Required: No\r\n",
		"multipart/report; report-type=tlsrpt;", "Content-Type: application/tlsrpt+gzip\r\n"} {
		if !bytes.Contains(p, []byte(s)) {
			t.Errorf("no %q in\n%s", s, p)
		}
	}
	n := 0
	err = enclosure.FromMessage(bytes.NewReader(p), enclosure.Limits{}, func(d *enclosure.Document) error {
		n++
		r, err := Parse(d)
		if d := cmp.Diff(m.Report, r); d != "" {
			t.Errorf("what comes back differs:\n%s", d)
		}
		return err
	})
	if err != nil || n != 1 {
		t.Errorf("%d reports, %v", n, err)
	}
	for name, change := range map[string]func(*Mail){
		"no domain":    func(m *Mail) { m.Domain = "" },
		"to two lines": func(m *Mail) { m.To = "a@b.test\r\nBcc: c@d.test" },
		"no report":    func(m *Mail) { m.Report = nil },
	} {
		m := example()
		change(m)
		if _, err := m.Compose(); err == nil {
			t.Errorf("%s: composed", name)
		}
	}
}

// TestMox compares what we write and read with another's implementation.
func TestMox(t *testing.T) {
	t.Parallel()
	p, err := example().Compose()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := mox.ParseMessage(slog.New(slog.DiscardHandler), bytes.NewReader(p))
	if err != nil {
		t.Fatalf("mox does not read our message: %v", err)
	}
	same(t, "our message", example().Report, theirs)
	for _, name := range []string{"rfc8460-b.json", "google.json", "microsoft.json"} {
		text := read(t, name)
		// They want lists, and numbers, where some senders write none.
		strict := strings.ReplaceAll(strings.ReplaceAll(string(text), `"mx-host": "*.mail.company-y.example"`, `"mx-host": ["*.mail.company-y.example"]`), `"47"`, `47`)
		theirs, err := mox.Parse(strings.NewReader(strict))
		if err != nil {
			t.Errorf("%s: mox: %v", name, err)
			continue
		}
		ours, err := Parse(bytes.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, name, ours, theirs)
	}
	for _, txt := range []string{
		"v=TLSRPTv1; rua=mailto:reports@example.com", "v=TLSRPTv1;rua=mailto:a@b.test,https://x.test/y;", "v=TLSRPTv1; rua=https://x.test/; k=v",
		"v=TLSRPTv1; x=y", "v=TLSRPTv1", "v=TLSRPTv1; rua=", "v=TLSRPTv1;; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test; =x",
		"v=TLSRPTv1; _x=y; rua=mailto:a@b.test", "v=TLSRPTv2; rua=mailto:a@b.test", "v=spf1 -all",
	} {
		_, _, theirErr := mox.ParseRecord(txt)
		_, ourErr := ParseRecord([]string{txt})
		if (theirErr == nil) != (ourErr == nil) {
			t.Errorf("%q: mox says %v, we say %v", txt, theirErr, ourErr)
		}
	}
}

func same(t *testing.T, name string, ours *Report, theirs *mox.ReportJSON) {
	t.Helper()
	if ours.ID != theirs.ReportID || ours.Organization != theirs.OrganizationName || ours.Contact != theirs.ContactInfo ||
		!ours.Range.Start.Equal(theirs.DateRange.Start) || !ours.Range.End.Equal(theirs.DateRange.End) ||
		len(ours.Policies) != len(theirs.Policies) {
		t.Fatalf("%s: we read %+v, mox %+v", name, ours, theirs)
	}
	for i := range ours.Policies {
		a, b := &ours.Policies[i], &theirs.Policies[i]
		if string(a.Policy.Type) != string(b.Policy.Type) || a.Policy.Domain != b.Policy.Domain ||
			fmt.Sprint(a.Policy.Strings, a.Policy.Hosts) != fmt.Sprint(b.Policy.String, b.Policy.MXHost) ||
			a.Summary.Successful != b.Summary.TotalSuccessfulSessionCount || a.Summary.Failed != b.Summary.TotalFailureSessionCount ||
			len(a.Failures) != len(b.FailureDetails) {
			t.Errorf("%s: we read %+v, mox %+v", name, a, b)
			continue
		}
		for j := range a.Failures {
			f, g := &a.Failures[j], &b.FailureDetails[j]
			if string(f.Type) != string(g.ResultType) || f.Sessions != g.FailedSessionCount || f.Host != g.ReceivingMXHostname ||
				f.ReceivingIP != g.ReceivingIP || f.SendingIP != g.SendingMTAIP || f.Reason != g.FailureReasonCode ||
				f.Information != g.AdditionalInformation {
				t.Errorf("%s: we read %+v, mox %+v", name, f, g)
			}
		}
	}
}

func TestResultTypes(t *testing.T) {
	t.Parallel()
	seen := make(map[ResultType]bool)
	for _, r := range ResultTypes() {
		if r == "" || seen[r] {
			t.Errorf("%q", r)
		}
		seen[r] = true
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"rfc8460-b.json", "google.json", "microsoft.json"} {
		p, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := Parse(bytes.NewReader(p))
		if err != nil {
			return
		}
		file, err := r.Gzip()
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(bytes.NewReader(text)); err != nil || again.ID != r.ID || again.Totals() != r.Totals() {
			t.Errorf("written %s\nread %+v, %v", text, again, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@b.test,https://x.test/y")
	f.Add("v=TLSRPTv1;rua=mailto:a%2B@b.test;x=y;")
	f.Fuzz(func(t *testing.T, s string) {
		rec, err := ParseRecord([]string{s})
		if err != nil {
			return
		}
		for _, d := range rec.Destinations {
			if strings.ContainsAny(d.Address+d.URL, "\r\n\x00 ") || (d.Address == "") == (d.URL == "") {
				t.Errorf("%q gave %+v", s, d)
			}
		}
	})
}
