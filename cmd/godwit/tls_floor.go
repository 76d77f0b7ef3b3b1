package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) tlsFloorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "floor",
		Short: "Show and reset the hosts that always had TLS",
		Long: `Show and reset the hosts that always had TLS. A host that had TLS on several days, and was never without, has a
floor: if TLS is suddenly missing there, mail waits for some hours before it goes in the clear, or for good, as
delivery.tls_floor says.`,
		Example: `  godwit tls floor list
  godwit tls floor reset mx1.example.com`,
	}
	c.AddCommand(a.tlsFloorListCommand(), a.tlsFloorResetCommand())
	return c
}

func (a *app) tlsFloorListCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List mail hosts that always had TLS",
		Example: `  godwit tls floor list
  godwit tls floor list --all --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.TLSFloors(c.Context(), all)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printFloors(w, list.Floors, time.Now(), a.columns()) })
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also hosts that are still being learnt")
	return c
}

func printFloors(w io.Writer, list []api.TLSFloor, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No host has a floor.")
		return
	}
	rows := [][]cell{{word("HOST"), {"DAYS", true}, word("SINCE"), word("LAST"), word("MISSING"), word("WHY")}}
	for i := range list {
		f := &list[i]
		missing := "-"
		if f.Missing != nil {
			missing = short(now.Sub(*f.Missing))
		}
		rows = append(rows, []cell{word(f.Host), number(f.Days), word(f.Since.Local().Format(time.DateOnly)),
			word(f.Last.Local().Format(time.DateOnly)), word(missing), word(orWord(f.Why, "-"))})
	}
	fmt.Fprint(w, table(rows, columns))
}

func (a *app) tlsFloorResetCommand() *cobra.Command {
	var s api.TLSFloorSelection
	c := &cobra.Command{
		Use:   "reset [HOST]",
		Short: "Forget that a mail host always had TLS",
		Long: `Forget that a mail host always had TLS, after it gave TLS up on purpose: mail that waits for TLS goes in the clear
at its next attempt. The host is learnt anew.`,
		Example: `  godwit tls floor reset mx1.example.com
  godwit tls floor reset --all`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				s.Host = args[0]
			}
			if s == (api.TLSFloorSelection{}) {
				return usagef("say which hosts: a HOST or --all\nSee \"%s --help\"", c.CommandPath())
			}
			return a.ask(func(client *api.Client) error {
				list, err := client.ResetTLSFloors(c.Context(), s)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					if len(list.Floors) == 0 {
						fmt.Fprintln(w, "Nothing was known of it.")
						return
					}
					fmt.Fprintf(w, "%s forgotten.\n", count(len(list.Floors), "host is", "hosts are"))
				})
			})
		},
	}
	c.Flags().BoolVar(&s.All, "all", false, "every host")
	return c
}
