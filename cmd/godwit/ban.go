package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) banCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ban",
		Short: "Show and lift the bans that too many failed logins lead to",
		Example: `  godwit ban list
  godwit ban clear 192.0.2.7`,
	}
	c.AddCommand(a.banListCommand(), a.banClearCommand())
	return a.serverFlags(c)
}

func (a *app) banListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List addresses and accounts that are banned now",
		Long: `List addresses and accounts that are banned now. Bans end by themselves. An account that has logged in from
an address within the last 30 days is at home there: bans of the address or of the account do not concern it,
only its own failures from there do.`,
		Example: "  godwit ban list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.Bans(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printBans(w, list.Bans, time.Now(), a.columns()) })
			})
		},
	}
}

func printBans(w io.Writer, list []api.Ban, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Nobody is banned.")
		return
	}
	rows := [][]cell{{word("ADDRESS"), word("ACCOUNT"), word("TENANT"), {"FAILURES", true}, word("ENDS"), word("WHO")}}
	for i := range list {
		b := &list[i]
		who := map[string]string{
			"address": "everyone at the address but accounts at home there", "account": "the account, but at its home addresses",
			"home": "the account at this home address",
		}[b.Kind]
		rows = append(rows, []cell{word(orWord(b.Address, "-")), word(orWord(b.Login, "-")), word(orWord(b.Tenant, "-")),
			number(b.Failures), word(until(&b.Until, now)), word(who)})
	}
	fmt.Fprint(w, table(rows, columns))
}

func (a *app) banClearCommand() *cobra.Command {
	var s api.BanSelection
	c := &cobra.Command{
		Use:   "clear [ADDRESS]",
		Short: "Lift bans, and forget the failures that would lead to the next",
		Example: `  godwit ban clear 192.0.2.7
  godwit ban clear --account app1
  godwit ban clear --all`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				s.Address = args[0]
			}
			if s == (api.BanSelection{}) {
				return usagef("say which bans: an ADDRESS, --account or --all\nSee \"%s --help\"", c.CommandPath())
			}
			return a.ask(func(client *api.Client) error {
				list, err := client.ClearBans(c.Context(), s)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					if len(list.Bans) == 0 {
						fmt.Fprintln(w, "No ban was in force; failures so far are forgotten.")
						return
					}
					fmt.Fprintf(w, "%s lifted.\n", count(len(list.Bans), "ban is", "bans are"))
				})
			})
		},
	}
	c.Flags().StringVar(&s.Login, "account", "", "bans of the account with this user `NAME`")
	c.Flags().BoolVar(&s.All, "all", false, "every ban")
	return c
}
