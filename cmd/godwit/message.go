package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) messageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "message",
		Short: "Tell one message's whole story",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "show ID",
		Short: "Show what happened to a message, what is left to do, and why it waits",
		Long: `Show what happened to a message, what is left to do, and why it waits.
The id stands in the 250 reply that the application got, and in the Received field.`,
		Example: "  godwit message show 06bq3k1c5g0000g40r10",
		Args:    exactly(1, "ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			m, err := client.Message(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(m, func(w io.Writer) { printMessage(w, m, time.Now()) })
		},
	})
	return c
}

func printMessage(w io.Writer, m api.Message, now time.Time) {
	fmt.Fprintf(w, "message %s", m.ID)
	if m.Received != nil {
		fmt.Fprintf(w, ", accepted %s (%s ago)", m.Received.Local().Format("2006-01-02 15:04:05"), age(m.Received, now))
	}
	if m.Size > 0 {
		fmt.Fprintf(w, ", %s", size(m.Size))
	}
	fmt.Fprintln(w)
	if m.InSpool || m.Sender != "" {
		fmt.Fprintf(w, "  from     %s\n", orWord(m.Sender, "<> (a report)"))
	}
	for _, name := range []string{"From", "Subject", "Message-ID"} {
		if v := m.Headers[name]; v != "" {
			fmt.Fprintf(w, "  %-8s %s\n", name, v)
		}
	}
	fmt.Fprintln(w)
	printTimeline(w, m.Events)
	if m.More {
		fmt.Fprintln(w, "  ... the timeline was cut here; the event log has the rest")
	}
	if len(m.Entries) == 0 {
		fmt.Fprintln(w, "\nNothing is left to do.")
		return
	}
	fmt.Fprintln(w, "\nStill in the queue:")
	for _, e := range m.Entries {
		printEntry(w, e, now)
	}
}

// printTimeline writes events one below the other, each with the time since the first.
func printTimeline(w io.Writer, events []api.TimelineEvent) {
	var first time.Time
	for i, e := range events {
		if i == 0 {
			first = e.Time
		}
		who := ""
		if e.Recipient != "" {
			who = "  " + e.Recipient
		}
		fmt.Fprintf(w, "  %s  %+8.3fs  %-11s%s  %s\n", e.Time.Local().Format("15:04:05.000"), e.Time.Sub(first).Seconds(),
			e.Type, who, e.Text)
	}
}
