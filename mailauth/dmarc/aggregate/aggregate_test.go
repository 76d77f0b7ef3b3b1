package aggregate

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	mox "github.com/mjl-/mox/dmarcrpt"
)

var addresses = cmpopts.EquateComparable(netip.Addr{})

var begin, end = time.Unix(1795219200, 0).UTC(), time.Unix(1795305599, 0).UTC()

func golden() map[string]*Report {
	return map[string]*Report{
		"google.xml": {
			Organization: "google.com", Email: "noreply-dmarc-support@google.com", Contact: "https://support.google.com/a/answer/2466580",
			ID: "10051505501689795560", Begin: begin, End: end,
			Policy: Policy{Domain: "example.com", DKIMAlignment: "s", SPFAlignment: "r", Policy: "reject", Subdomains: "none", NonExistent: "reject", Percentage: "100"},
			Records: []Record{
				{Source: netip.MustParseAddr("192.0.2.1"), Count: 120, Disposition: "none", DKIM: true, SPF: true, HeaderFrom: "example.com",
					DKIMResults: []DKIMResult{{Domain: "example.com", Selector: "s1", Result: "pass"}, {Domain: "esp.example", Selector: "k2", Result: "pass"}},
					SPFResults:  []SPFResult{{Domain: "example.com", Result: "pass"}}},
				{Source: netip.MustParseAddr("2001:db8::25"), Count: 3, Disposition: "reject", HeaderFrom: "example.com",
					Reasons:    []Reason{{Type: "mailing_list", Comment: "arc=pass as.1.list.example=pass"}},
					SPFResults: []SPFResult{{Domain: "list.example", Result: "pass"}}},
			},
		},
		"microsoft.xml": {
			Version: "1.0", Organization: "Enterprise Outlook", Email: "dmarcreport@microsoft.com", ID: "5f0b3c8a1d0e4c1f9b7a",
			Begin: begin, End: end.Add(time.Second),
			Policy: Policy{Domain: "example.com", DKIMAlignment: "r", SPFAlignment: "r", Policy: "quarantine", Subdomains: "quarantine",
				Percentage: "100", FailureOptions: "0"},
			Records: []Record{{Source: netip.MustParseAddr("198.51.100.7"), Count: 1, Disposition: "none", DKIM: true, HeaderFrom: "example.com",
				EnvelopeFrom: "bounces.example.com", EnvelopeTo: "contoso.com",
				DKIMResults: []DKIMResult{{Domain: "example.com", Selector: "s1", Result: "pass"}},
				SPFResults:  []SPFResult{{Domain: "bounces.example.com", Scope: "mfrom", Result: "none"}}}},
		},
		"yahoo.xml": {
			Organization: "Yahoo", Email: "dmarchelp@yahooinc.com", ID: "1795305600.123456", Begin: begin, End: end,
			Policy: Policy{Domain: "example.com", DKIMAlignment: "r", SPFAlignment: "r", Policy: "none", Percentage: "100"},
			Records: []Record{{Source: netip.MustParseAddr("203.0.113.200"), Count: 2, Disposition: "none", DKIM: true, SPF: true, HeaderFrom: "example.com",
				DKIMResults: []DKIMResult{{Domain: "example.com", Selector: "s1", Result: "pass"}}, SPFResults: []SPFResult{{Domain: "example.com", Result: "pass"}}}},
		},
		"rfc9990.xml": {
			Version: "1.0", Organization: "Sample Reporter", Email: "report_sender@reporter.example", ID: "3v98abbp8ya9n3va8yr8oa3ya",
			Begin: begin, End: end, Generator: "Example DMARC Aggregate Reporter v1.2",
			Policy: Policy{Domain: "example.com", Policy: "quarantine", Subdomains: "none", NonExistent: "none", Testing: "n", DiscoveryMethod: "treewalk"},
			Records: []Record{{Source: netip.MustParseAddr("192.0.2.123"), Count: 123, Disposition: "pass", DKIM: true, HeaderFrom: "example.com",
				EnvelopeFrom: "example.com",
				DKIMResults:  []DKIMResult{{Domain: "example.com", Selector: "abc123", Result: "pass", Text: "it <held> & all"}},
				SPFResults:   []SPFResult{{Domain: "example.com", Result: "fail"}}}},
		},
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, want := range golden() {
		got, err := Parse(bytes.NewReader(read(t, name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(want, got, addresses); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	r, err := Parse(bytes.NewReader(read(t, "google.xml")))
	if err != nil {
		t.Fatal(err)
	}
	if all, passed := r.Totals(); all != 123 || passed != 120 {
		t.Errorf("totals %d, %d", all, passed)
	}
}

// TestMox compares with another's reader.
func TestMox(t *testing.T) {
	t.Parallel()
	for name := range golden() {
		ours, err := Parse(bytes.NewReader(read(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, name)
		if name == "rfc9990.xml" { // it knows the older form alone
			text = bytes.Replace(text, []byte(` xmlns="urn:ietf:params:xml:ns:dmarc-2.0"`), nil, 1)
		}
		theirs, err := mox.ParseReport(bytes.NewReader(bytes.Replace(text, []byte("1795305599 <"), []byte("1795305599<"), 1)))
		if err != nil {
			t.Errorf("%s: mox: %v", name, err)
			continue
		}
		if ours.Organization != theirs.ReportMetadata.OrgName || ours.ID != theirs.ReportMetadata.ReportID ||
			ours.Begin.Unix() != theirs.ReportMetadata.DateRange.Begin || ours.End.Unix() != theirs.ReportMetadata.DateRange.End ||
			ours.Policy.Domain != theirs.PolicyPublished.Domain || ours.Policy.Policy != string(theirs.PolicyPublished.Policy) ||
			len(ours.Records) != len(theirs.Records) {
			t.Errorf("%s: we read %+v, mox %+v", name, ours, theirs)
			continue
		}
		for i := range ours.Records {
			a, b := &ours.Records[i], &theirs.Records[i]
			if a.Source.String() != b.Row.SourceIP || a.Count != int64(b.Row.Count) || a.Disposition != string(b.Row.PolicyEvaluated.Disposition) ||
				a.DKIM != (b.Row.PolicyEvaluated.DKIM == "pass") || a.SPF != (b.Row.PolicyEvaluated.SPF == "pass") ||
				a.HeaderFrom != strings.ToLower(b.Identifiers.HeaderFrom) || a.EnvelopeFrom != b.Identifiers.EnvelopeFrom ||
				len(a.DKIMResults) != len(b.AuthResults.DKIM) || len(a.SPFResults) != len(b.AuthResults.SPF) ||
				len(a.Reasons) != len(b.Row.PolicyEvaluated.Reasons) {
				t.Errorf("%s: we read %+v, mox %+v", name, a, b)
			}
			for j := range a.DKIMResults {
				x, y := &a.DKIMResults[j], &b.AuthResults.DKIM[j]
				if x.Domain != y.Domain || x.Selector != y.Selector || x.Result != string(y.Result) || x.Text != y.HumanResult {
					t.Errorf("%s: we read %+v, mox %+v", name, x, y)
				}
			}
		}
	}
}

// wrap makes a report with something in a place.
func wrap(inRecord, beside string) string {
	return `<feedback><report_metadata><org_name>a</org_name><report_id>1</report_id><date_range><begin>1</begin><end>2</end></date_range>` +
		`</report_metadata><policy_published><domain>x.test</domain></policy_published>` + beside + `<record>` + inRecord + `</record></feedback>`
}

func TestOddities(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		ok   func(*Report) bool
	}{
		"latin-1":             {`<?xml version="1.0" encoding="ISO-8859-1"?>` + strings.Replace(wrap("", ""), ">a<", ">Gr\xf6\xdfe<", 1), func(r *Report) bool { return r.Organization == "Größe" }},
		"upper case":          {wrap(`<row><policy_evaluated><disposition>Reject</disposition><dkim>PASS</dkim></policy_evaluated></row>`, ""), func(r *Report) bool { return r.Records[0].DKIM && r.Records[0].Disposition == "reject" }},
		"no address":          {wrap(`<row><source_ip>nonsense</source_ip><count>-5</count></row>`, ""), func(r *Report) bool { return !r.Records[0].Source.IsValid() && r.Records[0].Count == 0 }},
		"a count beyond all":  {wrap(`<row><count>99999999999999999999</count></row>`, ""), func(r *Report) bool { return r.Records[0].Count == 0 }},
		"IPv4 in IPv6":        {wrap(`<row><source_ip>::ffff:192.0.2.1</source_ip></row>`, ""), func(r *Report) bool { return r.Records[0].Source.String() == "192.0.2.1" }},
		"a comment":           {wrap(`<row><count>1<!-- x -->2</count></row>`, "<!-- y -->"), func(r *Report) bool { return r.Records[0].Count == 12 }},
		"data":                {wrap(`<row><count><![CDATA[7]]></count></row>`, ""), func(r *Report) bool { return r.Records[0].Count == 7 }},
		"many results":        {wrap(`<auth_results>`+strings.Repeat(`<dkim><domain>x</domain></dkim>`, 1000)+`</auth_results>`, ""), func(r *Report) bool { return len(r.Records[0].DKIMResults) == maxResults }},
		"a long text":         {strings.Replace(wrap("", ""), ">a<", ">"+strings.Repeat("é", 5000)+"<", 1), func(r *Report) bool { return len(r.Organization) <= maxText }},
		"an element of yours": {wrap("", "<x><y>z</y></x>"), func(r *Report) bool { return len(r.Records) == 1 }},
		"another prefix":      {strings.NewReplacer("</", "</d:", "<", "<d:").Replace(wrap("", "")), func(r *Report) bool { return r.ID == "1" }},
	} {
		r, err := Parse(strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !c.ok(r) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestHostile looks at memory, so it is not parallel.
func TestHostile(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		unsafe bool
	}{
		"nothing":              {"", false},
		"a page":               {"<html><body>hi</body></html>", false},
		"cut off":              {wrap("", "")[:200], false},
		"two":                  {wrap("", "") + wrap("", ""), false},
		"wrong ends":           {strings.Replace(wrap("", ""), "</record>", "</row>", 1), false},
		"no domain":            {strings.Replace(wrap("", ""), "<domain>x.test</domain>", "", 1), false},
		"no time":              {strings.Replace(wrap("", ""), "<begin>1</begin>", "", 1), false},
		"nobody":               {strings.NewReplacer("<org_name>a</org_name>", "", "<report_id>1</report_id>", "").Replace(wrap("", "")), false},
		"entities":             {`<!DOCTYPE feedback [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + wrap("<x>&b;</x>", ""), true},
		"an external one":      {`<!DOCTYPE feedback [<!ENTITY a SYSTEM "file:///etc/passwd">]>` + wrap("<x>&a;</x>", ""), true},
		"an entity of nobody":  {wrap("<x>&a;</x>", ""), false},
		"deep":                 {wrap(strings.Repeat("<x>", 100_000), ""), true},
		"a tag of 20 MiB":      {wrap(`<x `+strings.Repeat(`a="" `, 4<<20)+`/>`, ""), true},
		"a text of 20 MiB":     {wrap("<x>"+strings.Repeat("y", 20<<20)+"</x>", ""), true},
		"a name of 20 MiB":     {wrap("<"+strings.Repeat("y", 20<<20)+"/>", ""), true},
		"many records":         {strings.Replace(wrap("", ""), "<record>", strings.Repeat("<record/>", MaxRecords)+"<record>", 1), false},
		"a character set":      {`<?xml version="1.0" encoding="EBCDIC"?>` + wrap("", ""), false},
		"UTF-8 that is broken": {wrap("<x>\xff\xfe</x>", ""), false},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := Parse(strings.NewReader(c.text))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: read as %+v", name, r)
		} else if c.unsafe != errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
			t.Errorf("%s: %d MiB allocated", name, got>>20)
		}
	}
}

func FuzzParse(f *testing.F) {
	for name := range golden() {
		f.Add(read(f, name))
	}
	f.Add([]byte(wrap("<row/>", "<x/>")))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := Parse(bytes.NewReader(p))
		if err != nil {
			return
		}
		if r.ID == "" && r.Organization == "" || r.Policy.Domain == "" || r.End.Before(r.Begin) {
			t.Errorf("%+v", r)
		}
		all, passed := r.Totals()
		if passed > all || all < 0 {
			t.Errorf("%d of %d passed", passed, all)
		}
	})
}
