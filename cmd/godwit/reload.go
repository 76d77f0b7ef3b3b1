package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) reloadCommand() *cobra.Command {
	return a.serverFlags(&cobra.Command{
		Use:   "reload",
		Short: "Have the running server load its configuration again",
		Long: `Have the running server load its configuration again, as SIGHUP does. A file with a mistake
changes nothing: the mistakes are listed and the server goes on as before.`,
		Example: "  godwit reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			res, err := client.Reload(c.Context())
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) {
				if len(res.Changed)+len(res.NeedRestart) == 0 {
					fmt.Fprintln(w, "Loaded; nothing had changed.")
				}
				for _, k := range res.Changed {
					fmt.Fprintf(w, "changed        %s\n", k)
				}
				for _, k := range res.NeedRestart {
					fmt.Fprintf(w, "needs restart  %s\n", k)
				}
			})
		},
	})
}
