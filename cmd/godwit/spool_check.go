package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/spool"
)

func (a *app) spoolCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify checksums and references of a stopped or running server's data; changes nothing",
		Long: `Read everything in the data directory of a stopped or running server and verify it: the checksum of each
record and body in the journal, that each message has its body, that no entry came to an end twice, and that
the index says what the journal says. A running server's index is in its hands and is not compared.
Nothing is changed. The status is 1 if anything is wrong.`,
		Example: `  godwit spool check
  godwit spool check --data-dir /var/lib/godwit --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.spoolCheck(c.Context()) },
	}
}

func (a *app) spoolCheck(ctx context.Context) error {
	cfg, err := a.dataConfig()
	if err != nil {
		return err
	}
	dir := cfg.DataDir
	journal := filepath.Join(dir, "journal")
	if _, err := os.Stat(journal); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no journal: is it the data directory of a server?", dir)
	}
	keys, err := daemon.OpenKeys(ctx, cfg)
	if err != nil {
		return err
	}
	bar := a.newProgress("reading", 1)
	report, err := spool.Check(ctx, spool.CheckOptions{
		JournalDir: journal,
		Dir:        dir,
		FS:         daemon.SealedFS(keys, nil),
		Sealer:     daemon.Sealer(keys),
		Progress:   func(done, total int64) { bar.part(done, total) },
	})
	bar.end()
	if err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	if report.Problems == nil {
		report.Problems = []spool.Problem{}
	}
	if err := a.print(report, func(w io.Writer) { printCheck(w, dir, report) }); err != nil {
		return err
	}
	if !report.OK() {
		return errSilent
	}
	return nil
}

func printCheck(w io.Writer, dir string, r *spool.CheckReport) {
	fmt.Fprintf(w, "%s: %s in %s, %s, %s\n", dir, count(r.Records, "record", "records"),
		count(r.Extents, "segment", "segments"), count(r.Bodies, "body", "bodies"), size(r.Bytes))
	fmt.Fprintf(w, "%s with %s still to do; index %s\n", count(r.Messages, "message", "messages"),
		count(r.Entries, "entry", "entries"), r.Index)
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %s\n", count(r.More, "more problem", "more problems"))
	}
	if r.OK() {
		fmt.Fprintln(w, "Everything is as it should be.")
		return
	}
	fmt.Fprintf(w, "%s.\n", count(len(r.Problems)+r.More, "thing is wrong", "things are wrong"))
}
