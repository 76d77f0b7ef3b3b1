package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) tlsPolicyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "See what domains published of their TLS (MTA-STS, DANE), and forget it",
	}
	c.AddCommand(a.tlsPolicyShowCommand(), a.tlsPolicyResetCommand())
	return c
}

func (a *app) tlsPolicyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show DOMAIN",
		Short: "Show what TLS mail to a domain must have, host by host, and why",
		Long: `Show what TLS mail to a domain must have, host by host, since the domain published it: its MTA-STS policy and how
old that is, and the TLSA records of its hosts (DANE), which go before it. The server asks what it does not know as
it would for mail. What routes, tenants and delivery.tls demand comes on top.`,
		Example: `  godwit tls policy show example.com
  godwit tls policy show example.com --json`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				d, err := client.TLSPolicy(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { printDomainTLS(w, &d, time.Now(), a.columns()) })
			})
		},
	}
}

func printDomainTLS(w io.Writer, d *api.DomainTLS, now time.Time, columns int) {
	switch s := d.STS; {
	case s == nil:
		fmt.Fprintln(w, "MTA-STS: no policy is known.")
	default:
		mx := ""
		if len(s.MX) > 0 {
			mx = " for " + strings.Join(s.MX, ", ")
		}
		fmt.Fprintf(w, "MTA-STS: %s%s; fetched %s ago, holds for %s, is fetched anew %s.\n", s.Mode, mx, age(&s.Fetched, now),
			short(s.Expires.Sub(now)), until(&s.Refresh, now))
		if s.Failed > 0 {
			fmt.Fprintf(w, "         %s in a row gave nothing; what is kept holds until it expires.\n", count(s.Failed, "fetch", "fetches"))
		}
	}
	for _, n := range d.Notes {
		fmt.Fprintln(w, "         "+n)
	}
	if d.Error != "" {
		fmt.Fprintln(w, "Hosts:   "+d.Error+".")
		return
	}
	if d.Signed {
		fmt.Fprintln(w, "DANE:    the MX records are validated; TLSA records of the hosts count.")
	} else {
		fmt.Fprintln(w, "DANE:    the MX records are not validated with DNSSEC by a server that is trusted (dns.dnssec); TLSA records do not count.")
	}
	fmt.Fprintln(w)
	rows := [][]cell{{{"PREF", true}, word("HOST"), word("BY"), word("WHAT HOLDS")}}
	for i := range d.Hosts {
		h := &d.Hosts[i]
		by := map[string]string{"tlsa": "DANE", "sts": "MTA-STS"}[h.Policy]
		rows = append(rows, []cell{number(int64(h.Preference)), word(h.Host), word(orWord(by, "-")), word(h.Meaning)})
	}
	fmt.Fprint(w, table(rows, columns))
	for i := range d.Hosts {
		for _, r := range d.Hosts[i].Records {
			fmt.Fprintf(w, "  %s TLSA %s\n", d.Hosts[i].Base, r)
		}
	}
}

func (a *app) tlsPolicyResetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset DOMAIN",
		Short: "Forget the MTA-STS policy of a domain, so that it is fetched anew",
		Long: `Forget the MTA-STS policy of a domain, so that the next mail asks for it anew. Do so only if the domain's operator
says that the policy is wrong and cannot publish another one: until it is fetched again nothing protects mail to the
domain. It is on record (godwit audit).`,
		Example: "  godwit tls policy reset example.com",
		Args:    exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				r, err := client.ResetTLSPolicy(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(r, func(w io.Writer) {
					if !r.Forgotten {
						fmt.Fprintf(w, "No MTA-STS policy of %s was known.\n", r.Domain)
						return
					}
					fmt.Fprintf(w, "The MTA-STS policy of %s is forgotten; the next mail asks for it.\n", r.Domain)
				})
			})
		},
	}
}
