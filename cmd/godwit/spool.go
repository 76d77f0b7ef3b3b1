package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) spoolCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "spool",
		Short: "Count what the spool holds; verify it, byte for byte",
	}
	c.AddCommand(a.spoolStatsCommand(), a.spoolCheckCommand())
	return a.serverFlags(c)
}

func (a *app) spoolStatsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show the running server's spool in numbers; the sum must hold",
		Example: `  godwit spool stats
  godwit spool stats --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := client.SpoolStats(c.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { printStats(w, s) })
		},
	}
}

func printStats(w io.Writer, s api.SpoolStats) {
	rows := [][]cell{{word("accepted"), number(s.Accepted), word("recipients since the spool was made")}}
	var sum uint64
	for _, row := range []struct {
		what string
		n    uint64
	}{
		{"delivered", s.Delivered}, {"bounced", s.Bounced}, {"expired", s.Expired}, {"suppressed", s.Suppressed},
		{"cancelled", s.Cancelled}, {"queued", s.Queued},
	} {
		rows = append(rows, []cell{word("  " + row.what), number(row.n)})
		sum += row.n
	}
	fmt.Fprint(w, table(rows, 0))
	if sum == s.Accepted {
		fmt.Fprintln(w, "The sum holds.")
	} else {
		fmt.Fprintf(w, "THE SUM DOES NOT HOLD: %d of %d are accounted for. Please report this.\n", sum, s.Accepted)
	}
	fmt.Fprintf(w, "\njournal: %s in %s, %s of it needed; in memory %s of bodies, %s of the index\n", size(s.JournalSize),
		count(s.Segments, "segment", "segments"), size(s.LiveSize), size(s.MemoryBody), size(s.MemoryIndex))
	if s.Damaged > 0 {
		fmt.Fprintf(w, "%s: \"godwit spool check\" names what is touched\n",
			count(s.Damaged, "damaged stretch", "damaged stretches"))
	}
}
