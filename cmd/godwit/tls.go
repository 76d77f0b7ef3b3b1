package main

import "github.com/spf13/cobra"

func (a *app) tlsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tls",
		Short: "See and reset what is known of the TLS of mail servers elsewhere",
		Example: `  godwit tls policy show example.com
  godwit tls policy reset example.com
  godwit tls floor list`,
	}
	c.AddCommand(a.tlsPolicyCommand(), a.tlsFloorCommand())
	return a.serverFlags(c)
}
