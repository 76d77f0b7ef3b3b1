package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// shortID is how much of an id tells a report apart for a person.
const shortID = 8

func right(s string) cell { return cell{text: s, right: true} }

func printReports(w io.Writer, list *api.ReportList, columns int) {
	if len(list.Reports) == 0 {
		fmt.Fprintln(w, "No such report has come in.")
		return
	}
	rows := [][]cell{{word("ID"), word("KIND"), word("DOMAIN"), word("DAY"), word("BY"), right("TOTAL"), right("FAILED"), word("FROM")}}
	for i := range list.Reports {
		r := &list.Reports[i]
		rows = append(rows, []cell{word(r.ID[:min(len(r.ID), shortID)]), word(r.Kind), word(r.Domain), word(r.Begin.UTC().Format(time.DateOnly)),
			word(r.Organization), number(r.Total), number(r.Failed), word(voucher(r))})
	}
	fmt.Fprint(w, table(rows, columns))
	if list.More {
		fmt.Fprintln(w, "There are more; --limit shows them, --domain and --since select.")
	}
}

func printReportShown(w io.Writer, r *api.Report, columns int) {
	fmt.Fprintf(w, "%s report %s of %s\n", strings.ToUpper(r.Kind), r.ReportID, r.Organization)
	fmt.Fprintf(w, "Domain:    %s\n", r.Domain)
	fmt.Fprintf(w, "Time:      %s to %s\n", r.Begin.UTC().Format(time.RFC3339), r.End.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "Received:  %s, %s\n", r.Received.UTC().Format(time.RFC3339), voucher(r))
	if r.Contact != "" {
		fmt.Fprintf(w, "Contact:   %s\n", r.Contact)
	}
	if d := r.DMARC; d != nil {
		fmt.Fprintf(w, "Policy:    %s\nMessages:  %d, %d did not pass\n\n", d.Policy, r.Total, r.Failed)
		printDMARCRows(w, d, columns)
	}
	if t := r.TLS; t != nil {
		fmt.Fprintf(w, "Sessions:  %d, %d failed\n\n", r.Total, r.Failed)
		rows := [][]cell{{word("POLICY"), word("DOMAIN"), right("SUCCEEDED"), right("FAILED")}}
		for i := range t.Policies {
			p := &t.Policies[i]
			rows = append(rows, []cell{word(p.Type), word(p.Domain), number(p.Successful), number(p.Failed)})
		}
		fmt.Fprint(w, table(rows, columns))
		if len(t.Failures) > 0 {
			fmt.Fprintln(w)
			printTLSFailures(w, t.Failures, columns)
		}
	}
}

func printDMARCRows(w io.Writer, d *api.DMARCReport, columns int) {
	rows := [][]cell{{word("SOURCE"), right("MESSAGES"), word("DKIM"), word("SPF"), word("DONE"), word("FROM"), word("WHY")}}
	for i := range d.Rows {
		r := &d.Rows[i]
		rows = append(rows, []cell{word(dash(r.Source)), number(r.Messages), word(passFail(r.DKIM)), word(passFail(r.SPF)),
			word(dash(r.Disposition)), word(dash(r.HeaderFrom)), word(r.Reason)})
	}
	fmt.Fprint(w, table(rows, columns))
	if d.More > 0 {
		fmt.Fprintf(w, "And %d messages from sources that are not kept.\n", d.More)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func passFail(ok bool) string {
	if ok {
		return "pass"
	}
	return "fail"
}

func printTLSFailures(w io.Writer, list []api.TLSFailure, columns int) {
	rows := [][]cell{{word("FAILURE"), right("SESSIONS"), word("HOST"), word("SENDER"), word("REASON")}}
	for i := range list {
		f := &list[i]
		rows = append(rows, []cell{word(f.Type), number(f.Sessions), word(dash(f.Host)), word(dash(f.Sender)), word(f.Reason)})
	}
	fmt.Fprint(w, table(rows, columns))
}

// shownSources is how many sources of one domain are shown to a person.
const shownSources = 20

func printSummary(w io.Writer, list *api.ReportSummaryList, columns int) {
	if len(list.Domains) == 0 {
		fmt.Fprintf(w, "No report has come in on a time since %s.\n", list.Since.UTC().Format(time.DateOnly))
		return
	}
	for i := range list.Domains {
		d := &list.Domains[i]
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s since %s\n", d.Domain, list.Since.UTC().Format(time.DateOnly))
		if m := d.DMARC; m != nil {
			fmt.Fprintf(w, "DMARC: %s, %d messages, %d passed (%s), %d by DKIM, %d by SPF\n", count(m.Reports, "report", "reports"),
				m.Messages, m.Passed, share(m.Passed, m.Messages), m.DKIM, m.SPF)
			rows := [][]cell{{word("SOURCE"), right("MESSAGES"), right("PASSED"), right("DKIM"), right("SPF"), right("REFUSED")}}
			for i := range m.Sources[:min(len(m.Sources), shownSources)] {
				s := &m.Sources[i]
				rows = append(rows, []cell{word(dash(s.Source)), number(s.Messages), number(s.Passed), number(s.DKIM), number(s.SPF), number(s.Refused)})
			}
			fmt.Fprint(w, table(rows, columns))
			if n := len(m.Sources) - shownSources; n > 0 {
				fmt.Fprintf(w, "And %s; --json shows them.\n", count(n, "more source", "more sources"))
			}
		}
		if t := d.TLS; t != nil {
			fmt.Fprintf(w, "TLS: %s, %d sessions succeeded, %d failed\n", count(t.Reports, "report", "reports"), t.Successful, t.Failed)
			if len(t.Failures) > 0 {
				printTLSFailures(w, t.Failures[:min(len(t.Failures), shownSources)], columns)
			}
		}
	}
	if list.More {
		fmt.Fprintln(w, "There are more reports than were read; name a DOMAIN, or a later --since.")
	}
}

func share(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", float64(part)*100/float64(whole))
}

func printUnread(w io.Writer, list *api.UnreadReportList, columns int) {
	if len(list.Unread) == 0 {
		fmt.Fprintln(w, "All that came in as reports could be read.")
		return
	}
	rows := [][]cell{{word("TIME"), word("MESSAGE"), word("SENDER"), word("PROBLEM")}}
	for i := range list.Unread {
		u := &list.Unread[i]
		rows = append(rows, []cell{word(u.Received.Local().Format("2006-01-02 15:04:05")), word(dash(u.Message)), word(dash(u.Sender)), word(u.Problem)})
	}
	fmt.Fprint(w, table(rows, columns))
	fmt.Fprintln(w, "--json shows how each begins.")
}

func printSent(w io.Writer, list *api.SentReportList, columns int) {
	if len(list.Sent) == 0 {
		fmt.Fprintln(w, "No TLS report goes out: nothing was counted, or no domain asks for any.")
		return
	}
	rows := [][]cell{{word("DOMAIN"), word("FROM"), word("TO"), right("SUCCEEDED"), right("FAILED"), word("STATE"), word("WHERE")}}
	for i := range list.Sent {
		s := &list.Sent[i]
		state := s.State
		if s.Next != nil {
			state += ", " + s.Next.Local().Format("02 Jan 15:04")
		}
		rows = append(rows, []cell{word(s.Domain), word(s.Begin.UTC().Format("2006-01-02 15:04")), word(s.End.UTC().Format("15:04")),
			number(s.Successful), number(s.Failed), word(state), word(destinations(s))})
	}
	fmt.Fprint(w, table(rows, columns))
}

func destinations(s *api.SentReport) string {
	var list []string
	if s.Problem != "" {
		list = append(list, s.Problem)
	}
	for _, t := range s.To {
		text := t.URI
		switch {
		case t.Problem != "":
			text += " (" + t.Problem + ")"
		case t.Message != "":
			text += " (message " + t.Message + ")"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func indented(p json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Indent(&b, p, "", "  "); err != nil {
		return string(p)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
