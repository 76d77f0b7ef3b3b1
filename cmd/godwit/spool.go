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
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.spoolStatsCommand())
	return c
}

func (a *app) spoolStatsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show the running server's spool in numbers; the sum must hold",
		Args:  cobra.NoArgs,
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
	fmt.Fprintf(w, "accepted    %10d recipients since the spool was made\n", s.Accepted)
	for _, row := range []struct {
		what string
		n    uint64
	}{
		{"delivered", s.Delivered}, {"bounced", s.Bounced}, {"expired", s.Expired}, {"suppressed", s.Suppressed},
		{"cancelled", s.Cancelled}, {"queued", s.Queued},
	} {
		fmt.Fprintf(w, "  %-10s%10d\n", row.what, row.n)
	}
	sum := s.Delivered + s.Bounced + s.Expired + s.Suppressed + s.Cancelled + s.Queued
	if sum == s.Accepted {
		fmt.Fprintln(w, "the sum holds")
	} else {
		fmt.Fprintf(w, "THE SUM DOES NOT HOLD: %d of %d are accounted for\n", sum, s.Accepted)
	}
	fmt.Fprintf(w, "\njournal: %s in %d segments, %s of it needed; %s of bodies in memory\n", size(s.JournalSize), s.Segments,
		size(s.LiveSize), size(s.MemoryBody))
	if s.Damaged > 0 {
		fmt.Fprintf(w, "%d damaged stretches: \"godwit spool check\" names what they touch\n", s.Damaged)
	}
}
