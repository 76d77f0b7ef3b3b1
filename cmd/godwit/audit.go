package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/store"
)

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and prove that the record is whole",
		Example: `  godwit audit list --since 24h
  godwit audit verify
  godwit audit export > audit.jsonl`,
	}
	c.AddCommand(a.auditListCommand(), a.auditVerifyCommand(), a.auditExportCommand())
	return a.serverFlags(c)
}

// auditFlags gives c the flags that select records. since is read by sinceFlag.
func auditFlags(c *cobra.Command, q *api.AuditQuery, since *string) {
	c.Flags().StringVar(since, "since", "", "records not older than this `TIME`: 24h, 7d, or 2026-11-22T10:00:00Z")
	c.Flags().StringVar(&q.Action, "action", "", "records of this `ACTION`: credential.create, or credential for all of them")
	c.Flags().StringVar(&q.Actor, "actor", "", "records of this `USER` or credential")
}

func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, err := config.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, usagef("--since %q is neither a time span such as 24h or 7d nor a time such as 2026-11-22T10:00:00Z", s)
}

func (a *app) auditListCommand() *cobra.Command {
	var q api.AuditQuery
	var since string
	var last int
	c := &cobra.Command{
		Use:   "list",
		Short: "List administrative acts, the latest last",
		Long: `List administrative acts: who did what from where, the latest last. A record is written before its act begins;
an act that failed, or told something worth keeping, has a second record, which names the first.`,
		Example: `  godwit audit list --since 24h
  godwit audit list --action credential --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if last < 1 {
				return usagef("--last is at least 1")
			}
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				list := []api.AuditRecord{}
				err := eachRecord(c.Context(), client, q, func(r *api.AuditRecord) error {
					if list = append(list, *r); len(list) > 2*last {
						list = append(list[:0], list[len(list)-last:]...)
					}
					return nil
				})
				if err != nil {
					return err
				}
				list = list[max(len(list)-last, 0):]
				return a.print(list, func(w io.Writer) { a.printAudit(w, list) })
			})
		},
	}
	auditFlags(c, &q, &since)
	c.Flags().IntVar(&last, "last", 50, "at most the last `N`")
	return c
}

// eachRecord asks for all records, a page at a time.
func eachRecord(ctx context.Context, client *api.Client, q api.AuditQuery, do func(*api.AuditRecord) error) error {
	q.Limit = 1000
	for {
		page, err := client.Audit(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Records {
			if err := do(&page.Records[i]); err != nil {
				return err
			}
			q.After = page.Records[i].Index
		}
		if !page.More {
			return nil
		}
	}
}

func (a *app) printAudit(w io.Writer, list []api.AuditRecord) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No such act is on record.")
		return
	}
	rows := [][]cell{{{"#", true}, word("TIME"), word("WHO"), word("FROM"), word("WHAT"), word("TO"), word("")}}
	for i := range list {
		r := &list[i]
		note := ""
		switch {
		case r.Error != "":
			note = fmt.Sprintf("#%d failed: %s", r.Of, r.Error)
		case r.Of != 0:
			note = fmt.Sprintf("#%d gave %s", r.Of, r.After)
		case len(r.After) > 0:
			note = string(r.After)
		}
		rows = append(rows, []cell{number(r.Index), word(r.Time.Local().Format("2006-01-02 15:04:05")), word(r.Actor), word(r.Source),
			word(r.Action), word(r.Target), word(note)})
	}
	fmt.Fprint(w, table(rows, a.columns()))
}

func (a *app) auditExportCommand() *cobra.Command {
	var q api.AuditQuery
	var since string
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the records as JSON lines, with their hashes",
		Long: `Write the records as JSON lines, oldest first, with the hashes that chain them: "godwit audit verify FILE" checks
them anywhere. Records of one --action or --actor have gaps and cannot be verified.`,
		Example: `  godwit audit export > audit.jsonl
  godwit audit export --since 7d | gzip > week.jsonl.gz`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				enc := json.NewEncoder(a.out)
				enc.SetEscapeHTML(false)
				return eachRecord(c.Context(), client, q, func(r *api.AuditRecord) error { return enc.Encode(r) })
			})
		},
	}
	auditFlags(c, &q, &since)
	return c
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var anchor string
	c := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check that no record was changed, removed, or put elsewhere",
		Long: `Check that no record was changed, removed, put elsewhere or cut off, and name the first bad one. Without FILE the
records of the running server are checked, or of its data directory if it is stopped; with FILE those of an
export, which may begin anywhere. They are compared with the signed heads in the anchor file.
The status is 1 if anything is wrong.`,
		Example: `  godwit audit verify
  godwit audit verify audit.jsonl --anchor /var/log/godwit/audit.anchor`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			rep, err := a.auditReport(c.Context(), args, anchor)
			if err != nil {
				return err
			}
			if err := a.print(rep, func(w io.Writer) { printReport(w, &rep) }); err != nil {
				return err
			}
			if rep.Problem != "" {
				return errSilent
			}
			return nil
		},
	}
	c.Flags().StringVar(&anchor, "anchor", "", "anchor `FILE` (default that of the configuration)")
	return c
}

func (a *app) auditReport(ctx context.Context, args []string, anchor string) (api.AuditReport, error) {
	if len(args) == 0 && anchor == "" {
		path, err := a.socketPath()
		if err != nil {
			return api.AuditReport{}, err
		}
		client := api.NewSocketClient(path)
		defer client.Close()
		if _, err := client.Status(ctx); err == nil {
			return client.VerifyAudit(ctx)
		}
	}
	cfg, err := a.dataConfig()
	if err != nil {
		return api.AuditReport{}, err
	}
	if anchor != "" {
		cfg.Audit.Anchor = anchor
	}
	anchors, err := daemon.ReadAnchors(cfg)
	if err != nil {
		return api.AuditReport{}, err
	}
	var rep audit.Report
	if len(args) == 1 {
		rep, err = verifyExport(args[0], anchors)
	} else {
		rep, err = verifyStopped(ctx, cfg, anchors)
	}
	return daemon.AuditReport(cfg, &rep), err
}

func verifyExport(path string, anchors []audit.Anchor) (audit.Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return audit.Report{}, fmt.Errorf("read export: %w", err)
	}
	return audit.Verify(audit.ReadExport(bytes.NewReader(data)), anchors, true)
}

// verifyStopped reads the chain of a server that does not run.
func verifyStopped(ctx context.Context, cfg *config.Config, anchors []audit.Anchor) (rep audit.Report, err error) {
	dir := filepath.Join(cfg.DataDir, "store")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return rep, fmt.Errorf("%s has no store: is it the data directory of a server?", cfg.DataDir)
	}
	keys, err := daemon.OpenKeys(ctx, cfg)
	if err != nil {
		return rep, err
	}
	s, err := store.Open(store.Options{Dir: dir, FS: daemon.SealedFS(keys, nil)})
	if err != nil {
		return rep, err
	}
	rep, err = audit.VerifyStore(ctx, s, anchors)
	return rep, errors.Join(err, s.Close())
}

func printReport(w io.Writer, rep *api.AuditReport) {
	switch {
	case rep.Problem != "":
		fmt.Fprintf(w, "Record %d is bad: %s.\n", rep.Bad, rep.Problem)
		if rep.Last > 0 {
			fmt.Fprintf(w, "Records %d to %d are as they were written.\n", max(rep.First, 1), rep.Last)
		}
	case rep.Last == 0:
		fmt.Fprintln(w, "There are no records.")
	default:
		fmt.Fprintf(w, "Records %d to %d are as they were written.\n", rep.First, rep.Last)
	}
	if rep.Anchors > 0 {
		fmt.Fprintf(w, "%s in %s, signed by key %s.\n", count(rep.Anchors, "anchor", "anchors"), rep.AnchorFile, rep.Key)
	}
	if rep.Advice != "" {
		fmt.Fprintf(w, "Note: %s.\n", rep.Advice)
	}
}
