package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) queueCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue",
		Short: "Show what waits and why; hold, release, retry, bounce or cancel it",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		a.queueListCommand(),
		a.queueShowCommand(),
		a.actCommand(api.Hold, "Keep entries back until they are released; with a queue or sender, later mail as well"),
		a.actCommand(api.Release, "Undo a hold"),
		a.actCommand(api.Retry, "Try entries again now"),
		a.actCommand(api.Bounce, "Give up on entries and send their senders a report"),
		a.actCommand(api.Cancel, "Give up on entries and tell nobody"),
	)
	return c
}

func (a *app) queueListCommand() *cobra.Command {
	var q api.QueueQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List queues, the largest first",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Queues(c.Context(), q)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { printQueues(w, list, time.Now()) })
		},
	}
	f := c.Flags()
	f.StringVar(&q.Tenant, "tenant", "", "only queues of this tenant")
	f.StringVar(&q.State, "state", "", "only queues with entries in this state: waiting, claimed, held")
	f.IntVar(&q.Limit, "limit", 100, "list at most this many")
	return c
}

func printQueues(w io.Writer, list api.QueueList, now time.Time) {
	if len(list.Queues) == 0 {
		fmt.Fprintln(w, "The queue is empty.")
		return
	}
	t := tabwriter.NewWriter(w, 2, 4, 2, ' ', 0)
	fmt.Fprintln(t, "DOMAIN\tTENANT\tWAITING\tIN FLIGHT\tHELD\tOLDEST\tNEXT\tWHY")
	for _, q := range list.Queues {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", q.Domain, q.Tenant, q.Waiting, q.Claimed, q.Held,
			age(q.Oldest, now), until(q.NextDue, now), q.Why.Text)
	}
	t.Flush()
	fmt.Fprintf(w, "%d entries in %d queues", list.Entries, list.Total)
	if len(list.Queues) < list.Total {
		fmt.Fprintf(w, ", %d of them listed", len(list.Queues))
	}
	fmt.Fprintln(w, ".")
}

func (a *app) queueShowCommand() *cobra.Command {
	var tenant string
	var limit int
	c := &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show a queue: why it waits, and its next entries with the remote's words",
		Args:  exactly(1, "DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			details, err := client.Queue(c.Context(), args[0], tenant, limit)
			if err != nil {
				return err
			}
			return a.print(details, func(w io.Writer) {
				for i, d := range details {
					if i > 0 {
						fmt.Fprintln(w)
					}
					printQueue(w, d, time.Now())
				}
			})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only the queue of this tenant")
	c.Flags().IntVar(&limit, "limit", 20, "list at most this many entries")
	return c
}

func printQueue(w io.Writer, d api.QueueDetail, now time.Time) {
	q := d.Queue
	fmt.Fprintf(w, "%s (tenant %s): %d waiting, %d in flight, %d held\n", q.Domain, q.Tenant, q.Waiting, q.Claimed, q.Held)
	if q.Why.Text != "" {
		fmt.Fprintf(w, "  %s\n", q.Why.Text)
	}
	for _, e := range d.Entries {
		fmt.Fprintln(w)
		printEntry(w, e, now)
	}
	if d.More {
		fmt.Fprintf(w, "\n... and more; --limit N lists them.\n")
	}
}

func printEntry(w io.Writer, e api.Entry, now time.Time) {
	sender := e.Sender
	if sender == "" {
		sender = "<> (a report)"
	}
	fmt.Fprintf(w, "%s  %s -> %s  %s, age %s, %s\n", e.ID, sender, e.Recipient, e.State, age(&e.Received, now), size(e.Size))
	fmt.Fprintf(w, "  why    %s\n", e.Why.Text)
	if e.Attempts > 0 {
		last := ""
		if e.LastAttempt != nil {
			last = ", the last " + age(e.LastAttempt, now) + " ago"
		}
		fmt.Fprintf(w, "  tried  %s%s\n", times(e.Attempts), last)
	}
	if e.LastReply != "" {
		fmt.Fprintf(w, "  reply  %s: %s\n", orWord(e.LastHost, "remote"), e.LastReply)
	}
	if e.NextAttempt != nil {
		fmt.Fprintf(w, "  next   %s, given up %s\n", until(e.NextAttempt, now), until(&e.Expires, now))
	}
}

// actCommand makes the subcommand of one verb; all take the same selection.
func (a *app) actCommand(verb api.Verb, short string) *cobra.Command {
	var s api.Selection
	var reason string
	c := &cobra.Command{
		Use:   string(verb) + " [DOMAIN]",
		Short: short,
		Example: fmt.Sprintf("  godwit queue %[1]s example.com\n  godwit queue %[1]s --message 06bq3k1c5g0000g40r10\n"+
			"  godwit queue %[1]s --sender @shop.example --reason \"wrong prices\"", verb),
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				s.Queue = args[0]
			}
			if s == (api.Selection{}) {
				return usagef("say which entries: a DOMAIN, --message, --entry, --sender, --recipient, --tenant, --state or --all")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			res, err := client.Act(c.Context(), api.Action{Verb: verb, Selection: s, Reason: reason})
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d entries changed.\n", verb, res.Changed)
				if res.Rule != "" {
					fmt.Fprintf(w, "%s\n", res.Rule)
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&s.Message, "message", "", "entries of this message")
	f.StringVar(&s.Entry, "entry", "", "this entry, as in \"queue show\"")
	f.StringVar(&s.Tenant, "tenant", "", "entries of this tenant")
	f.StringVar(&s.Sender, "sender", "", "entries of this envelope sender, or @domain")
	f.StringVar(&s.Recipient, "recipient", "", "entries for this recipient")
	f.StringVar(&s.State, "state", "", "entries in this state: waiting, held")
	f.BoolVar(&s.All, "all", false, "every entry")
	f.StringVar(&reason, "reason", "", "why, for those who read the event log")
	return c
}

func exactly(n int, words string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s needs %s\nSee \"%s --help\"", c.CommandPath(), words, c.CommandPath())
		}
		return nil
	}
}

func age(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return short(now.Sub(*t))
}

func until(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	if d := t.Sub(now); d > 0 {
		return "in " + short(d)
	}
	return "now"
}

// short writes a duration with the two units that matter: 3d4h, 2h5m, 1m10s, 4s.
func short(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

func orWord(s, word string) string {
	if strings.TrimSpace(s) == "" {
		return word
	}
	return s
}
