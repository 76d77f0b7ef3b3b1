package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) doctorCommand() *cobra.Command {
	c := a.serverFlags(&cobra.Command{
		Use:   "doctor",
		Short: "Look at the server as a stranger would, and list what needs a person",
	})
	c.AddCommand(a.doctorRelayCommand(), a.doctorListCommand())
	return c
}

func (a *app) doctorRelayCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "relay",
		Short: "Try whether a stranger could send mail through this server",
		Long: `Have the server try its own listeners from an address without rights, in all ways in which relays have
been misused. Nothing is ever sent: a probe ends when a recipient is accepted. The server does the
same at its start and every day. The exit status is 1 if a listener is open or could not be tried.`,
		Example: "  godwit doctor relay",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			report, err := client.DoctorRelay(c.Context())
			if err != nil {
				return err
			}
			bad := report.Open
			for i := range report.Listeners {
				bad = bad || report.Listeners[i].Error != ""
			}
			if err := a.print(report, func(w io.Writer) { printRelay(w, &report) }); err != nil || !bad {
				return err
			}
			return errSilent
		},
	}
}

// shownProbes is how many probes are shown to people: where one is let through, most are.
const shownProbes = 5

func printRelay(w io.Writer, report *api.RelayReport) {
	if len(report.Listeners) == 0 {
		fmt.Fprintln(w, "There is no listener to try.")
	}
	for i := range report.Listeners {
		l := &report.Listeners[i]
		switch {
		case l.Error != "":
			fmt.Fprintf(w, "%s: could not be tried: %s\n", l.Listener, l.Error)
		case len(l.Open) > 0:
			fmt.Fprintf(w, "%s: OPEN RELAY, %d of %d probes from %s were let through:\n", l.Listener, len(l.Open), l.Probes, l.From)
			for i, f := range l.Open {
				if i == shownProbes {
					fmt.Fprintf(w, "  and %d more; --json lists all\n", len(l.Open)-i)
					break
				}
				fmt.Fprintf(w, "  probe %s\n    answered %s\n", f.Probe, f.Reply)
			}
			fmt.Fprintln(w, "  Narrow trusted_networks, xclient and proxy_protocol of this listener, or set auth: required.")
		default:
			fmt.Fprintf(w, "%s: closed, %d probes from %s were refused\n", l.Listener, l.Probes, l.From)
		}
		if l.Note != "" {
			fmt.Fprintf(w, "  note: %s\n", l.Note)
		}
	}
}

func (a *app) doctorListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List what is wrong with the server and needs a person",
		Example: "  godwit doctor list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Findings(c.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Findings) == 0 {
					fmt.Fprintln(w, "Nothing needs a person.")
				}
				for _, f := range list.Findings {
					word := "warning"
					if f.Grave {
						word = "GRAVE"
					}
					fmt.Fprintf(w, "%s: %s %s: %s; %s\n", word, f.Subject, f.Name, f.Problem, f.Advice)
				}
			})
		},
	}
}
