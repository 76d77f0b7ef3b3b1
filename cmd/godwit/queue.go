package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
)

func (a *app) queueCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue",
		Short: "Show what waits and why; hold, release, retry, bounce or cancel it",
		Example: `  godwit queue list
  godwit queue show example.com
  godwit queue hold --sender @shop.example --reason "wrong prices"`,
	}
	c.AddCommand(
		a.queueListCommand(),
		a.queueShowCommand(),
		a.actCommand(api.Hold, "Keep entries back until they are released; with a DOMAIN or --sender, later mail as well"),
		a.actCommand(api.Release, "Undo a hold"),
		a.actCommand(api.Retry, "Try entries again now"),
		a.actCommand(api.Bounce, "Give up on entries and send their senders a report"),
		a.actCommand(api.Cancel, "Give up on entries and tell nobody"),
	)
	return a.serverFlags(c)
}

func (a *app) queueListCommand() *cobra.Command {
	var q api.QueueQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List queues, the largest first",
		Example: `  godwit queue list
  godwit queue list --state held --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Limit < 1 {
				return usagef("--limit is at least 1")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Queues(c.Context(), q)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { printQueues(w, list, time.Now(), a.columns()) })
		},
	}
	f := c.Flags()
	f.StringVar(&q.Tenant, "tenant", "", "only queues of this `TENANT`")
	f.StringVar(&q.State, "state", "", "only queues with entries in this `STATE`: waiting, claimed (in flight), held")
	f.IntVar(&q.Limit, "limit", 100, "list at most `N`")
	complete(c, "state", "waiting", "claimed", "held")
	return c
}

// printQueues writes one line for each queue; columns wraps the reasons at a terminal's width.
func printQueues(w io.Writer, list api.QueueList, now time.Time, columns int) {
	if len(list.Queues) == 0 {
		fmt.Fprintln(w, "Nothing is queued.")
		return
	}
	tenants := false
	for i := range list.Queues {
		tenants = tenants || list.Queues[i].Tenant != config.DefaultTenant
	}
	head := func(s string) cell { return cell{text: s, right: true} }
	rows := [][]cell{{word("DOMAIN"), head("WAITING"), head("IN FLIGHT"), head("HELD"), head("OLDEST"), word("WHY")}}
	for i := range list.Queues {
		q := &list.Queues[i]
		domain := q.Domain
		if tenants {
			domain = q.Tenant + "/" + q.Domain
		}
		rows = append(rows, []cell{word(domain), number(q.Waiting), number(q.Claimed), number(q.Held),
			head(roughAge(q.Oldest, now)), word(q.Why.Text)})
	}
	if tenants {
		rows[0][0] = word("TENANT/DOMAIN")
	}
	fmt.Fprint(w, table(rows, columns))
	fmt.Fprintf(w, "\n%s in %s", count(list.Entries, "entry", "entries"), count(list.Total, "queue", "queues"))
	if len(list.Queues) < list.Total {
		fmt.Fprintf(w, ", %d of them listed; --limit N lists more", len(list.Queues))
	}
	fmt.Fprintln(w, ".")
}

func (a *app) queueShowCommand() *cobra.Command {
	var tenant string
	var limit int
	c := &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show a queue: why it waits, and its next entries with the remote's words",
		Example: `  godwit queue show example.com
  godwit queue show example.com --limit 1000 --json`,
		Args:              exactly("DOMAIN"),
		ValidArgsFunction: a.completeDomain,
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 {
				return usagef("--limit is at least 1")
			}
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
	c.Flags().StringVar(&tenant, "tenant", "", "only the queue of this `TENANT`")
	c.Flags().IntVar(&limit, "limit", 20, "list at most `N` entries")
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
	fmt.Fprintf(w, "%s  %s -> %s\n", e.ID, sender(e.Sender), e.Recipient)
	fmt.Fprintf(w, "  state  %s, %s old, %s\n", e.State, age(&e.Received, now), size(e.Size))
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
func (a *app) actCommand(verb api.Verb, summary string) *cobra.Command {
	var s api.Selection
	var reason string
	c := &cobra.Command{
		Use:   string(verb) + " [DOMAIN]",
		Short: summary,
		Long: summary + `.

DOMAIN and the flags say which entries are meant; given together, all of them must fit. What is done is
on stable storage when the command returns.`,
		Example: fmt.Sprintf("  godwit queue %[1]s example.com\n  godwit queue %[1]s --message 06bq3k1c5g0000g40r10\n"+
			"  godwit queue %[1]s --sender @shop.example%[2]s", verb, reasonExample(verb)),
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeDomain,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				s.Queue = args[0]
			}
			if s == (api.Selection{}) {
				return usagef("say which entries: a DOMAIN, --message, --entry, --sender, --recipient, --tenant or --all\n"+
					"See \"%s --help\"", c.CommandPath())
			}
			if s == (api.Selection{State: s.State}) {
				return usagef("--state alone selects nothing: add a DOMAIN, another flag, or --all")
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
			return a.print(res, func(w io.Writer) { printAction(w, verb, res) })
		},
	}
	f := c.Flags()
	f.StringVar(&s.Message, "message", "", "entries of the message with this `ID`")
	f.StringVar(&s.Entry, "entry", "", "the entry with this `ID`, as in \"queue show\"")
	f.StringVar(&s.Tenant, "tenant", "", "entries of this `TENANT`")
	f.StringVar(&s.Sender, "sender", "", "entries of this envelope `SENDER`, or of all at @domain")
	f.StringVar(&s.Recipient, "recipient", "", "entries for this `RECIPIENT`")
	f.StringVar(&s.State, "state", "", "entries in this `STATE`: waiting, claimed (in flight), held")
	f.BoolVar(&s.All, "all", false, "every entry")
	if takesReason(verb) {
		f.StringVar(&reason, "reason", "", reasonHelp(verb))
	}
	complete(c, "state", "waiting", "claimed", "held")
	return c
}

// takesReason tells verbs whose reason is kept from those that undo or hurry.
func takesReason(v api.Verb) bool { return v == api.Hold || v == api.Bounce || v == api.Cancel }

func reasonHelp(v api.Verb) string {
	if v == api.Bounce {
		return "`WHY`, told in the report and in the event log"
	}
	return "`WHY`, for those who look later"
}

func reasonExample(v api.Verb) string {
	if takesReason(v) {
		return ` --reason "wrong prices"`
	}
	return ""
}

// printAction says what an action did.
func printAction(w io.Writer, verb api.Verb, res api.ActionResult) {
	done := map[api.Verb]string{api.Hold: "held", api.Release: "released", api.Retry: "due now", api.Bounce: "bounced",
		api.Cancel: "cancelled"}[verb]
	switch res.Changed {
	case 0:
		fmt.Fprintln(w, "No entry was changed.")
	case 1:
		fmt.Fprintf(w, "1 entry is %s.\n", done)
	default:
		fmt.Fprintf(w, "%d entries are %s.\n", res.Changed, done)
	}
	if res.Rule != "" {
		fmt.Fprintln(w, res.Rule)
	}
}

// completeDomain completes the first argument from the queues of the running server.
func (a *app) completeDomain(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	list, err := client.Queues(ctx, api.QueueQuery{Limit: 1000})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var domains []string
	for i := range list.Queues {
		if d := list.Queues[i].Domain; strings.HasPrefix(d, begun) {
			domains = append(domains, d)
		}
	}
	return domains, cobra.ShellCompDirectiveNoFileComp
}

// complete offers words for a flag in shells.
func complete(c *cobra.Command, flag string, words ...string) {
	// The flag exists and has no completion yet: these are the only errors.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}
