package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/submission/auth"
)

func (a *app) tenantCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tenant",
		Short: "Keep those who send apart: their mail, domains, credentials and limits",
		Example: `  godwit tenant create shop --label "The shop"
  godwit tenant list`,
	}
	c.AddCommand(
		a.tenantCreateCommand(),
		a.tenantListCommand(),
		a.tenantShowCommand(),
		a.tenantUpdateCommand(),
		a.tenantRemoveCommand(),
	)
	return a.serverFlags(c)
}

func (a *app) tenantCreateCommand() *cobra.Command {
	var n api.NewTenant
	var limits []string
	c := &cobra.Command{
		Use:   "create ID",
		Short: "Make a tenant",
		Long: `Make a tenant. Its id is short, for flags, logs and metrics: lower-case letters, digits and . _ -
The tenant "default" and those of the configuration file need not be made.`,
		Example: `  godwit tenant create shop --label "The shop" --limit messages/day=100000`,
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			n.ID = args[0]
			var err error
			if n.Limits, err = parseLimits(limits); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				t, err := client.CreateTenant(c.Context(), n)
				if err != nil {
					return err
				}
				return a.print(t, func(w io.Writer) {
					fmt.Fprintf(w, "Tenant %s is made.\n", t.ID)
					fmt.Fprintf(w, "Next: \"godwit domain add DOMAIN --tenant %s\" and \"godwit credential create --tenant %s --name NAME\".\n", t.ID, t.ID)
				})
			})
		},
	}
	c.Flags().StringVar(&n.Name, "label", "", "a `NAME` for people")
	c.Flags().StringVar(&n.TLS, "tls", "", tenantTLSUsage)
	c.Flags().StringArrayVar(&limits, "limit", nil, "most that it may send, as `SUBJECT/PERIOD=N`: messages/day=100000")
	completeTLS(c)
	return c
}

func completeTLS(c *cobra.Command) { complete(c, "tls", append(auth.TLSWords(), "default")...) }

const tenantTLSUsage = "TLS of its mail, `LEVEL` none, opportunistic, encrypted, verified or default"

func (a *app) tenantListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List tenants",
		Example: "  godwit tenant list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.Tenants(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					rows := [][]cell{{word("TENANT"), word("STATE"), {"CREDENTIALS", true}, {"DOMAINS", true}, word("NAME")}}
					for i := range list.Tenants {
						t := &list.Tenants[i]
						rows = append(rows, []cell{word(t.ID), word(tenantState(t)), number(t.Credentials), number(t.Domains), word(t.Name)})
					}
					fmt.Fprint(w, table(rows, a.columns()))
				})
			})
		},
	}
}

func tenantState(t *api.Tenant) string {
	if t.Disabled {
		return "disabled"
	}
	return "active"
}

func (a *app) tenantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show ID",
		Short:             "Show a tenant",
		Example:           "  godwit tenant show shop",
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeTenant,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				t, err := client.Tenant(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(t, func(w io.Writer) { printTenant(w, &t) })
			})
		},
	}
}

func printTenant(w io.Writer, t *api.Tenant) {
	fmt.Fprintf(w, "%s: %s\n", t.ID, tenantState(t))
	if t.Name != "" {
		fmt.Fprintf(w, "  name         %s\n", t.Name)
	}
	fmt.Fprintf(w, "  credentials  %d\n  domains      %d\n", t.Credentials, t.Domains)
	for _, l := range t.Limits {
		fmt.Fprintf(w, "  limit        %s\n", limitText(l))
	}
	fmt.Fprintf(w, "  tls          %s\n", t.TLS)
	if t.Configured {
		fmt.Fprintln(w, "  It stands in the configuration file, which gives its name, limits and tls.")
	}
	if t.Created != nil {
		fmt.Fprintf(w, "  made         %s\n", t.Created.Local().Format("2006-01-02 15:04:05"))
	}
}

func (a *app) tenantUpdateCommand() *cobra.Command {
	var disable, enable, noLimits bool
	var label, tls string
	var limits []string
	c := &cobra.Command{
		Use:   "update ID",
		Short: "Disable or enable a tenant, rename or limit it, say what TLS its mail demands",
		Long: `Change a tenant. Sessions that are open follow at once, and mail that waits from its next attempt on.

--tls says what sessions to other servers must have when they carry its mail; of this and what delivery.tls or a route
says the stricter counts.`,
		Example: `  godwit tenant update shop --disable
  godwit tenant update shop --limit messages/hour=20000
  godwit tenant update shop --tls encrypted`,
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeTenant,
		RunE: func(c *cobra.Command, args []string) error {
			var ch api.TenantChange
			if !changesAny(c) {
				return usagef("say what to change\nSee \"%s --help\"", c.CommandPath())
			}
			if disable || enable {
				ch.Disabled = &disable
			}
			if c.Flags().Changed("label") {
				ch.Name = &label
			}
			if c.Flags().Changed("tls") {
				ch.TLS = &tls
			}
			if len(limits) > 0 || noLimits {
				list, err := parseLimits(limits)
				if err != nil {
					return err
				}
				ch.Limits = &list
			}
			return a.ask(func(client *api.Client) error {
				t, err := client.UpdateTenant(c.Context(), args[0], ch)
				if err != nil {
					return err
				}
				return a.print(t, func(w io.Writer) { printTenant(w, &t) })
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&disable, "disable", false, "let none of its credentials in, until --enable")
	f.BoolVar(&enable, "enable", false, "undo --disable")
	f.StringVar(&label, "label", "", "a `NAME` for people")
	f.StringVar(&tls, "tls", "", tenantTLSUsage)
	f.StringArrayVar(&limits, "limit", nil, "most that it may send, as `SUBJECT/PERIOD=N`; replaces all limits it has")
	f.BoolVar(&noLimits, "no-limits", false, "it has no limits of its own")
	c.MarkFlagsMutuallyExclusive("disable", "enable")
	completeTLS(c)
	return c
}

func (a *app) tenantRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a tenant that has neither credentials nor domains left",
		Long: `Remove a tenant that has neither credentials nor domains left. Mail of it that still waits goes its way, without what
the tenant demanded of TLS: hold or cancel it first if that matters ("godwit queue list --tenant ID").`,
		Example:           "  godwit tenant remove shop",
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeTenant,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				t, err := client.RemoveTenant(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(t, func(w io.Writer) { fmt.Fprintf(w, "Tenant %s is removed.\n", t.ID) })
			})
		},
	}
}

func (a *app) completeTenant(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.completeFrom(c, args, begun, func(ctx context.Context, client *api.Client) ([]string, error) {
		list, err := client.Tenants(ctx)
		names := make([]string, len(list.Tenants))
		for i := range list.Tenants {
			names[i] = list.Tenants[i].ID
		}
		return names, err
	})
}
