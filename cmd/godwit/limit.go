package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) limitCommand() *cobra.Command {
	c := a.serverFlags(&cobra.Command{
		Use:   "limit",
		Short: "See how much senders have used of what they may send",
	})
	c.AddCommand(a.limitListCommand())
	return c
}

func (a *app) limitListCommand() *cobra.Command {
	var q api.LimitQuery
	c := &cobra.Command{
		Use:   "list [NAME]",
		Short: "List limits: what is used, of how much, why so much, and what was held back",
		Long: `List the limits of tenants, credentials and client addresses that have sent lately: what is used, of how much,
where the number comes from, and how many messages and recipients it has held back since the start. NAME is one
tenant, user name or address. Limits are set in quotas and tenants of the configuration, and for one tenant or
credential with "godwit tenant" and "godwit credential".`,
		Example: `  godwit limit list
  godwit limit list shop --all
  godwit limit list --of client --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Name = args[0]
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Limits(c.Context(), q)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { printLimits(w, list.Limits, time.Now(), a.columns()) })
		},
	}
	f := c.Flags()
	f.StringVar(&q.Holder, "of", "", "only those of `KIND`: tenant, credential, client")
	f.BoolVar(&q.All, "all", false, "also what is counted and not limited")
	f.IntVar(&q.Limit, "limit", 0, "at most `N` senders of each kind, the latest ones (default 100)")
	complete(c, "of", "tenant", "credential", "client")
	return c
}

func printLimits(w io.Writer, list []api.LimitState, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Nobody who is limited has sent lately; --all shows what others have sent.")
		return
	}
	head := func(s string) cell { return cell{text: s, right: true} }
	rows := [][]cell{{word("OF"), word("NAME"), word("LIMIT"), head("USED"), head("MAX"), head("HELD BACK"), word("STATE")}}
	for i := range list {
		l := &list[i]
		most, state := "-", ""
		if l.Max > 0 {
			most, state = fmt.Sprint(l.Max), "from "+l.Source
		}
		if l.Room != nil {
			state = "USED UP, room " + until(l.Room, now) + "; " + state
		}
		rows = append(rows, []cell{
			word(l.Holder), word(l.Name), word(l.Limit), number(l.Used), head(most), number(l.Refused), word(state),
		})
	}
	fmt.Fprint(w, table(rows, columns))
}
