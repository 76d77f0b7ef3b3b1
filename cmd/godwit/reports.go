package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) reportsCommand() *cobra.Command {
	c := a.serverFlags(&cobra.Command{
		Use:   "reports",
		Short: "Read TLS and DMARC reports of others, and see those that go out",
		Long: `Receivers tell domains what they saw of their mail: in DMARC aggregate reports, who sends in a domain's name and
whether it passes; in TLS reports, how encrypted sessions to its mail hosts went. The server takes in what is sent to
reports.addresses, and sends TLS reports itself to the domains that ask for them.`,
		Example: `  godwit reports summary example.com
  godwit reports list --kind dmarc
  godwit reports import google.com!example.com!1700000000!1700086400.zip
  godwit reports send --dry-run`,
	})
	c.AddCommand(a.reportsListCommand(), a.reportsShowCommand(), a.reportsSummaryCommand(), a.reportsImportCommand(), a.reportsSendCommand())
	return c
}

func (a *app) reportsListCommand() *cobra.Command {
	var q api.ReportQuery
	var since string
	var unread, sent bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List reports that came in, the latest first",
		Long: `List reports that came in, the latest first: who reports on which domain and day, how many messages or sessions there
were, and how many of them failed. FROM is who signed the message (DKIM); "unsigned" is what anybody could have sent.
With --unread: what came in and could not be read. With --sent: the TLS reports of this server, and what became of them.`,
		Example: `  godwit reports list --domain example.com --since 7d
  godwit reports list --unread
  godwit reports list --sent --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if unread && sent {
				return usagef("--unread and --sent are two lists: give one of them")
			}
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				switch {
				case unread:
					list, err := client.UnreadReports(c.Context())
					if err != nil {
						return err
					}
					return a.print(list, func(w io.Writer) { printUnread(w, &list, a.columns()) })
				case sent:
					list, err := client.SentReports(c.Context(), q.Limit)
					if err != nil {
						return err
					}
					return a.print(list, func(w io.Writer) { printSent(w, &list, a.columns()) })
				}
				list, err := client.Reports(c.Context(), q)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printReports(w, &list, a.columns()) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&q.Kind, "kind", "", "only those of `KIND`: tls, dmarc")
	f.StringVar(&q.Domain, "domain", "", "only those about this `DOMAIN`")
	f.StringVar(&since, "since", "", "reports on times that end later than `TIME`: 24h, 7d, or 2026-11-22T10:00:00Z")
	f.IntVar(&q.Limit, "limit", 0, "at most `N` (default 100)")
	f.BoolVar(&unread, "unread", false, "what came in and could not be read")
	f.BoolVar(&sent, "sent", false, "the TLS reports that this server sends")
	complete(c, "kind", "tls", "dmarc")
	return c
}

func (a *app) reportsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show one report that came in",
		Long:    `Show one report that came in, with its rows. ID is that of "godwit reports list", or its begin.`,
		Example: `  godwit reports show 3fd0c1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				rep, err := client.Report(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(rep, func(w io.Writer) { printReportShown(w, &rep, a.columns()) })
			})
		},
	}
}

func (a *app) reportsSummaryCommand() *cobra.Command {
	var q api.ReportSummaryQuery
	var since string
	c := &cobra.Command{
		Use:   "summary [DOMAIN]",
		Short: "Sum up what reports say about each domain",
		Long: `Sum up what reports say about DOMAIN, or about each domain: of DMARC reports, how many messages each address sent in
its name and how many passed, by DKIM and by SPF; of TLS reports, how many sessions succeeded, and what the others
failed with.`,
		Example: `  godwit reports summary example.com
  godwit reports summary --since 7d --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Domain = args[0]
			}
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				list, err := client.ReportSummary(c.Context(), q)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printSummary(w, &list, a.columns()) })
			})
		},
	}
	c.Flags().StringVar(&since, "since", "", "reports on times that end later than `TIME`: 24h, 7d (default 30d)")
	return c
}

// maxReportFile is what the server takes.
const maxReportFile = 25 << 20

func (a *app) reportsImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Take in reports from files",
		Long: `Take in reports from files: mail messages (.eml), XML, JSON, each also in gzip or zip. What a file is, its first octets
tell. A report that is known already changes nothing.`,
		Example: `  godwit reports import report.eml
  godwit reports import old/*.xml.gz`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				all := api.ReportImport{Reports: []api.Report{}}
				for _, path := range args {
					file, err := readReportFile(path)
					if err != nil {
						return err
					}
					got, err := client.ImportReport(c.Context(), filepath.Base(path), file)
					if err != nil {
						return fmt.Errorf("%s: %w", path, err)
					}
					all.Reports = append(all.Reports, got.Reports...)
					all.Duplicates += got.Duplicates
				}
				return a.print(all, func(w io.Writer) {
					list := api.ReportList{Reports: all.Reports}
					if len(list.Reports) > 0 {
						printReports(w, &list, a.columns())
					}
					fmt.Fprintf(w, "%s taken in, %d known already.\n", count(len(all.Reports), "report", "reports"), all.Duplicates)
				})
			})
		},
	}
}

func readReportFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	defer f.Close()
	p, err := io.ReadAll(io.LimitReader(f, maxReportFile+1))
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if len(p) > maxReportFile {
		return nil, fmt.Errorf("%s is larger than %d MiB, which no report is", path, maxReportFile>>20)
	}
	return p, nil
}

func (a *app) reportsSendCommand() *cobra.Command {
	var s api.SendReports
	c := &cobra.Command{
		Use:   "send",
		Short: "Send the TLS reports that wait now, or show what they say",
		Long: `Send at once the TLS reports of days that are over and wait for their time. With --today also what was counted since
midnight UTC; the rest of the day is then a report of its own. With --dry-run nothing is sent: the reports are shown as
they would go out now.`,
		Example: `  godwit reports send --dry-run
  godwit reports send --today --domain example.com`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.SendReports(c.Context(), s)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					printSent(w, &list, a.columns())
					for i := range list.Sent {
						if len(list.Sent[i].Report) > 0 {
							fmt.Fprintf(w, "\n%s\n%s", list.Sent[i].ID, indented(list.Sent[i].Report))
						}
					}
				})
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&s.DryRun, "dry-run", false, "show what would be sent")
	f.BoolVar(&s.Today, "today", false, "also what was counted since midnight UTC")
	f.StringVar(&s.Domain, "domain", "", "only the reports to this `DOMAIN`")
	return c
}

// voucher says who vouches for a report.
func voucher(r *api.Report) string {
	switch {
	case len(r.SignedBy) > 0:
		return strings.Join(r.SignedBy, ", ")
	case r.Message == "":
		return "imported"
	}
	return "unsigned"
}
