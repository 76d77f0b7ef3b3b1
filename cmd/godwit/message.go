package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
)

func (a *app) messageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "message",
		Short: "Tell one message's whole story",
	}
	c.AddCommand(&cobra.Command{
		Use:   "show ID",
		Short: "Show what happened to a message, what is left to do, and why it waits",
		Long: `Show what happened to a message, what is left to do, and why it waits.
The id stands in the 250 reply that the application got, and in the Received field.`,
		Example: "  godwit message show 06bq3k1c5g0000g40r10",
		Args:    exactly("ID"),
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
	return a.serverFlags(c)
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
		fmt.Fprintf(w, "  from     %s\n", sender(m.Sender))
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
		if len(m.Events) > 0 && m.Events[len(m.Events)-1].Type == event.Accepted.String() {
			fmt.Fprintln(w, "\nNothing is left to do; the event log tells the outcome in a moment.")
			return
		}
		fmt.Fprintln(w, "\nNothing is left to do.")
		return
	}
	fmt.Fprintln(w, "\nStill in the queue:")
	for _, e := range m.Entries {
		printEntry(w, e, now)
	}
}

// printTimeline writes events one below the other, each with the time since the first. An attempt with one recipient is
// one line: that of its outcome, which says all that the attempt does.
func printTimeline(w io.Writer, events []api.TimelineEvent) {
	for i, e := range events {
		if e.Type == event.Attempted.String() && onlyOutcome(events[i:]) {
			continue
		}
		line := fmt.Sprintf("  %s %+9.3fs  %-10s  %s", e.Time.Local().Format("15:04:05.000"),
			e.Time.Sub(events[0].Time).Seconds(), e.Type, e.Recipient)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		for _, line := range wrap(e.Text, 72) {
			fmt.Fprintf(w, "%27s%s\n", "", line)
		}
	}
}

// onlyOutcome reports whether the attempt that events begin with is followed by exactly one outcome of its moment.
func onlyOutcome(events []api.TimelineEvent) bool {
	n := 0
	for _, e := range events[1:] {
		if e.Type == event.Attempted.String() || !e.Time.Equal(events[0].Time) {
			break
		}
		n++
	}
	return n == 1
}
