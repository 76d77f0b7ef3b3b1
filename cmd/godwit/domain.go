package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
)

func (a *app) domainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "domain",
		Short: "Say which domains a tenant may send from: proven by DNS, or assigned by you",
		Example: `  godwit domain add shop.example --tenant shop
  godwit domain verify shop.example --tenant shop
  godwit domain add example.com --assign
  godwit domain list`,
	}
	c.AddCommand(a.domainAddCommand(), a.domainVerifyCommand(), a.domainListCommand(), a.domainRemoveCommand())
	return a.serverFlags(c)
}

func tenantFlag(c *cobra.Command, tenant *string) {
	c.Flags().StringVar(tenant, "tenant", config.DefaultTenant, "the `TENANT` whose domain it is")
}

func (a *app) domainAddCommand() *cobra.Command {
	var n api.NewDomain
	c := &cobra.Command{
		Use:   "add DOMAIN",
		Short: "Claim a domain for a tenant, and show the DNS record that proves it",
		Long: `Claim a domain for a tenant, and show the DNS record that proves it. The tenant may send from the domain
once "godwit domain verify" has found the record; with --assign at once, by your word.

What is below the domain is included, unless --exact is given.`,
		Example: `  godwit domain add shop.example --tenant shop
  godwit domain add example.com --assign`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			n.Name = args[0]
			return a.ask(func(client *api.Client) error {
				d, err := client.AddDomain(c.Context(), n)
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { printClaim(w, &d) })
			})
		},
	}
	tenantFlag(c, &n.Tenant)
	c.Flags().BoolVar(&n.Assigned, "assign", false, "it is the tenant's by your word, without proof")
	c.Flags().BoolVar(&n.Exact, "exact", false, "what is below the domain is not included")
	return c
}

// printClaim says how a claim stands and what is to be done.
func printClaim(w io.Writer, d *api.Domain) {
	below := " and what is below it"
	if d.Exact {
		below = ""
	}
	switch {
	case d.Usable:
		fmt.Fprintf(w, "Tenant %s may send from %s%s.\n", d.Tenant, d.Name, below)
		if d.Problem != "" {
			fmt.Fprintf(w, "But the last look at DNS found: %s.\n", d.Problem)
		}
		return
	case d.Challenge == nil:
		fmt.Fprintf(w, "Domain %s is not proven, and the time for it is over: add it again for a new record.\n", d.Name)
		return
	}
	if d.Problem != "" {
		fmt.Fprintf(w, "Not proven yet: %s.\n", d.Problem)
	}
	fmt.Fprintf(w, "Put this record into the DNS of %s:\n\n  %s. TXT \"%s\"\n\n", d.Name, d.Challenge.Name, d.Challenge.Text)
	fmt.Fprintf(w, "or, if a TXT record cannot be, this one in its place:\n\n  %s. CNAME %s.\n\n", d.Challenge.Name, d.Challenge.Alias)
	fmt.Fprintf(w, "Then run, until %s:\n\n  godwit domain verify %s --tenant %s\n", d.Challenge.Until.Local().Format("2006-01-02"), d.Name, d.Tenant)
}

func (a *app) domainVerifyCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "verify DOMAIN",
		Short: "Look for the record that proves a domain; status 1 if it is not there",
		Long: `Look for the record that proves a domain; the exit status is 1 if it is not there. A record that was just
made can take until the old answer has gone from caches, often some minutes.`,
		Example: "  godwit domain verify shop.example --tenant shop",
		Args:    exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				d, err := client.VerifyDomain(c.Context(), args[0], tenant)
				if err != nil {
					return err
				}
				if err := a.print(d, func(w io.Writer) { printClaim(w, &d) }); err != nil {
					return err
				}
				if !d.Usable {
					return errSilent
				}
				return nil
			})
		},
	}
	tenantFlag(c, &tenant)
	return c
}

func (a *app) domainListCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "list",
		Short: "List domains, whose they are, and how that is known",
		Example: `  godwit domain list
  godwit domain list --tenant shop --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.Domains(c.Context(), tenant)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printDomains(w, list.Domains, time.Now(), a.columns()) })
			})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	return c
}

func printDomains(w io.Writer, list []api.Domain, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "There are no domains: add one with \"godwit domain add\".")
		return
	}
	rows := [][]cell{{word("DOMAIN"), word("TENANT"), word("STATE"), word("BY"), word("CHECKED"), word("FOUND")}}
	for i := range list {
		d := &list[i]
		checked := "-"
		if d.Checked != nil {
			checked = age(d.Checked, now) + " ago"
		}
		rows = append(rows, []cell{word(d.Name), word(d.Tenant), word(d.State), word(d.Source), word(checked), word(d.Problem)})
	}
	fmt.Fprint(w, table(rows, columns))
}

func (a *app) domainRemoveCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:     "remove DOMAIN",
		Short:   "Take a domain from a tenant; sessions that are open follow at once",
		Example: "  godwit domain remove shop.example --tenant shop",
		Args:    exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				d, err := client.RemoveDomain(c.Context(), args[0], tenant)
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { fmt.Fprintf(w, "Tenant %s may not send from %s any more.\n", d.Tenant, d.Name) })
			})
		},
	}
	tenantFlag(c, &tenant)
	return c
}
