package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
)

func (a *app) credentialCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "credential",
		Short: "Say which applications may send: passwords, API keys, certificates, tokens",
		Example: `  godwit credential create --name app1 --domain example.com
  godwit credential list
  godwit credential rotate app1 --keep-old 24h
  godwit credential revoke app1`,
	}
	c.AddCommand(
		a.credentialCreateCommand(),
		a.credentialListCommand(),
		a.credentialShowCommand(),
		a.credentialUpdateCommand(),
		a.credentialRotateCommand(),
		a.credentialRevokeCommand(),
	)
	return a.serverFlags(c)
}

// credentialFlags are what "create" and "update" have in common.
type credentialFlags struct {
	domains, senders, networks, scopes, limits []string

	note, role, expires    string
	nullSender, allTenants bool
}

func (f *credentialFlags) add(c *cobra.Command) {
	l := c.Flags()
	l.StringArrayVar(&f.domains, "domain", nil, "it may send from this `DOMAIN` and below; it becomes the tenant's if it is not yet")
	l.StringArrayVar(&f.senders, "sender", nil, "it may send from this domain or address of the tenant; may be repeated")
	l.StringArrayVar(&f.networks, "network", nil, "it may come from this `NETWORK` or address only; may be repeated")
	l.StringSliceVar(&f.scopes, "scope", nil, "what it is good for: smtp, api, read, admin (default smtp; with keys smtp,api)")
	l.StringArrayVar(&f.limits, "limit", nil, "most that it may send, as `SUBJECT/PERIOD=N`: messages/hour=1000; -1 sets none")
	l.StringVar(&f.note, "note", "", "a `TEXT` for people")
	l.StringVar(&f.role, "role", "", "what it may do over HTTP, besides sending: viewer, operator, admin")
	l.BoolVar(&f.allTenants, "all-tenants", false, "the role holds for every tenant")
	l.BoolVar(&f.nullSender, "null-sender", false, "it may send with an empty sender, as mail servers do that relay reports")
	l.StringVar(&f.expires, "expires", "", "it ends after this `TIME`, such as 90d, or on this day, such as 2027-01-31")
	complete(c, "scope", "smtp", "api", "read", "admin")
	complete(c, "role", "viewer", "operator", "admin")
}

// parseLimits reads limits such as messages/hour=1000.
func parseLimits(list []string) ([]api.Limit, error) {
	out := make([]api.Limit, 0, len(list))
	for _, s := range list {
		name, number, ok := strings.Cut(s, "=")
		subject, per, ok2 := strings.Cut(name, "/")
		n, err := strconv.ParseInt(number, 10, 64)
		if !ok || !ok2 || err != nil {
			return nil, usagef("--limit %q is not SUBJECT/PERIOD=N such as messages/hour=1000 or recipients/day=20000", s)
		}
		out = append(out, api.Limit{Subject: subject, Per: per, Max: n})
	}
	return out, nil
}

// parseExpiry reads a duration from now or a day.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if d, err := config.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--expires %q is neither a time from now such as 90d nor a day such as 2027-01-31", s)
}

// passwordFlag says that a password is read from standard input: on a command line everyone could see it.
func passwordFlag(c *cobra.Command, p *bool) {
	c.Flags().BoolVar(p, "password-stdin", false, "read the password from standard input; without it one is made, which is better")
}

func (a *app) readPassword(wanted bool) (string, error) {
	if !wanted {
		return "", nil
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usagef("--password-stdin: there is no password on standard input")
	}
	return line, nil
}

func (a *app) credentialCreateCommand() *cobra.Command {
	var f credentialFlags
	var n api.NewCredential
	var stdin bool
	c := &cobra.Command{
		Use:   "create --name NAME",
		Short: "Make a credential and show its secret, this once",
		Long: `Make a credential and show its secret, this once.

--domain is for the operator's own domains: it makes them the tenant's. A tenant that is somebody else proves its
domains by DNS ("godwit domain add"), and its credentials are restricted with --sender, if at all.`,
		Example: `  godwit credential create --name app1 --domain example.com
  godwit credential create --tenant shop --name shop-news --sender news@shop.example --limit messages/hour=5000
  godwit credential create --name ci --kind key --scope read --role viewer --expires 90d
  godwit credential create --name edge1 --kind certificate --certificate-name edge1.example.com`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if n.Login == "" {
				return usagef("say how the application is called: --name NAME\nSee \"%s --help\"", c.CommandPath())
			}
			var err error
			if n.Limits, err = parseLimits(f.limits); err != nil {
				return err
			}
			if f.expires != "" {
				t, err := parseExpiry(f.expires, time.Now())
				if err != nil {
					return err
				}
				n.Expires = &t
			}
			if n.Password, err = a.readPassword(stdin); err != nil {
				return err
			}
			n.Senders, n.AssignDomains = append(f.domains, f.senders...), len(f.domains) > 0
			n.Networks, n.Scopes, n.Note, n.Role = f.networks, f.scopes, f.note, f.role
			n.NullSender, n.AllTenants = f.nullSender, f.allTenants
			if err := a.ownSenders(c.Context(), n.Tenant, f.senders, n.AssignDomains); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				made, err := client.CreateCredential(c.Context(), n)
				if err != nil {
					return err
				}
				return a.print(made, func(w io.Writer) { printSecret(w, &made, "is made") })
			})
		},
	}
	f.add(c)
	l := c.Flags()
	l.StringVar(&n.Tenant, "tenant", config.DefaultTenant, "the `TENANT` that owns it")
	l.StringVar(&n.Login, "name", "", "the user `NAME`: lower-case letters, digits and . _ - @ +")
	l.StringVar(&n.Kind, "kind", "password", "how it is proven: password, key, certificate, oauth")
	l.StringVar(&n.CertificateName, "certificate-name", "", "kind certificate: the `NAME` among the certificate's subject alternative names")
	l.StringVar(&n.Issuer, "issuer", "", "kind oauth: the `NAME` of the issuer in auth.oauth of the configuration")
	l.StringVar(&n.Subject, "subject", "", "kind oauth: the value of the token's claim (default the user name)")
	passwordFlag(c, &stdin)
	complete(c, "kind", "password", "key", "certificate", "oauth")
	return c
}

// ownSenders keeps --sender from giving away what --domain was meant to: only domains named by --domain are assigned.
func (a *app) ownSenders(ctx context.Context, tenant string, senders []string, assigning bool) error {
	if !assigning || len(senders) == 0 {
		return nil
	}
	return a.ask(func(client *api.Client) error {
		list, err := client.Domains(ctx, tenant)
		if err != nil {
			return err
		}
		for _, s := range senders {
			domain := s[strings.LastIndexByte(s, '@')+1:]
			known := false
			for _, d := range list.Domains {
				name := strings.TrimPrefix(d.Name, "*.")
				known = known || d.Usable && (domain == name || strings.HasSuffix(domain, "."+name))
			}
			if !known {
				return usagef("--sender %s: the domain is not tenant %s's yet; name it with --domain to make it so", s, tenant)
			}
		}
		return nil
	})
}

// ask runs a question on the running server.
func (a *app) ask(do func(*api.Client) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// printSecret shows a credential that was just made, with all that the application needs to know.
func printSecret(w io.Writer, made *api.CredentialSecret, what string) {
	c := &made.Credential
	fmt.Fprintf(w, "Credential %s of tenant %s %s.\n", c.Login, c.Tenant, what)
	word := "password"
	if c.Kind == "key" {
		word = "API key"
	}
	servers := loginServers(made)
	if len(servers) > 0 || made.Secret != "" {
		fmt.Fprintln(w)
	}
	for i := range servers {
		fmt.Fprintf(w, "  server    %s\n", servers[i])
	}
	switch {
	case c.Kind == "key":
		fmt.Fprintf(w, "  user      %s (or \"apikey\")\n", c.Login)
	case c.Kind == "password":
		fmt.Fprintf(w, "  user      %s\n", c.Login)
	case c.Kind == "certificate":
		fmt.Fprintf(w, "  login     by a certificate for %s (EXTERNAL)\n", c.CertificateName)
	case c.Kind == "oauth":
		fmt.Fprintf(w, "  login     by a token of %s for %s (OAUTHBEARER, XOAUTH2)\n", c.Issuer, c.Subject)
	}
	if made.Secret != "" {
		fmt.Fprintf(w, "  %-8s  %s\n\n", word, made.Secret)
		fmt.Fprintf(w, "The %s is shown this once; the server keeps only what it takes to check it.\n", word)
	}
	if made.OldUntil != nil {
		fmt.Fprintf(w, "The old one is good until %s, but not for SCRAM.\n", made.OldUntil.Local().Format("2006-01-02 15:04"))
	}
	for _, d := range made.AssignedDomains {
		fmt.Fprintf(w, "Domain %s is assigned to tenant %s from now on.\n", d, c.Tenant)
	}
	printAdvice(w, made)
}

// loginServers says where the application connects, a listener a line.
func loginServers(made *api.CredentialSecret) []string {
	var list []string
	for _, s := range made.Servers {
		security := "TLS from the beginning"
		switch s.TLS {
		case "starttls":
			security = "STARTTLS"
		case "off":
			security = "no TLS"
		}
		list = append(list, fmt.Sprintf("%s, port %d, %s", s.Host, s.Port, security))
	}
	return list
}

// printAdvice says what to write into the application, and what stands in the way.
func printAdvice(w io.Writer, made *api.CredentialSecret) {
	c := &made.Credential
	smtp := false
	for _, s := range c.Scopes {
		smtp = smtp || s == "smtp"
	}
	switch {
	case !smtp:
		return
	case len(made.Servers) == 0:
		fmt.Fprintln(w, "No listener lets clients log in yet: give one \"tls: starttls\" and \"auth: required\" in the configuration.")
	case made.Secret != "":
		s := made.Servers[0]
		fmt.Fprintf(w, "\nIn the application:\n\n  SMTP_HOST=%s\n  SMTP_PORT=%d\n  SMTP_USER=%s\n  SMTP_PASSWORD=%s\n", s.Host, s.Port, c.Login, made.Secret)
		scheme := map[string]string{"implicit": "smtps"}[s.TLS]
		fmt.Fprintf(w, "\nor, where it takes a URL:\n\n  %s://%s:%s@%s:%d\n", orWord(scheme, "smtp"),
			strings.ReplaceAll(c.Login, "@", "%40"), made.Secret, s.Host, s.Port)
	}
	if len(c.Senders) > 0 {
		fmt.Fprintf(w, "\nIt may send from: %s.\n", strings.Join(c.Senders, ", "))
	} else {
		fmt.Fprintf(w, "\nIt may send from every domain of tenant %s; \"godwit domain list\" shows them.\n", c.Tenant)
	}
}

func (a *app) credentialListCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "list",
		Short: "List credentials and when they were last used",
		Example: `  godwit credential list
  godwit credential list --tenant shop --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.Credentials(c.Context(), tenant)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printCredentials(w, list.Credentials, time.Now(), a.columns()) })
			})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	return c
}

func printCredentials(w io.Writer, list []api.Credential, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "There are no credentials: make one with \"godwit credential create\".")
		return
	}
	rows := [][]cell{{word("NAME"), word("TENANT"), word("KIND"), word("STATE"), word("LAST USE"), word("MAY SEND FROM")}}
	for i := range list {
		c := &list[i]
		used := "never"
		if c.LastUse != nil {
			used = age(c.LastUse, now) + " ago"
		}
		rows = append(rows, []cell{word(c.Login), word(c.Tenant), word(c.Kind), word(strings.ReplaceAll(c.State, "_", " ")), word(used),
			word(orWord(strings.Join(c.Senders, ", "), "all of the tenant's"))})
	}
	fmt.Fprint(w, table(rows, columns))
}

func (a *app) credentialShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a credential, all but its secret",
		Example:           "  godwit credential show app1",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeCredential,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				found, err := client.Credential(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(found, func(w io.Writer) { printCredential(w, &found, time.Now()) })
			})
		},
	}
}

func printCredential(w io.Writer, c *api.Credential, now time.Time) {
	fmt.Fprintf(w, "%s (tenant %s): %s\n", c.Login, c.Tenant, strings.ReplaceAll(c.State, "_", " "))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-10s  %s\n", name, value)
		}
	}
	line("note", c.Note)
	line("id", c.ID)
	line("kind", c.Kind)
	line("name", c.CertificateName)
	line("token of", strings.Trim(c.Issuer+" for "+c.Subject, " for"))
	line("scopes", strings.Join(c.Scopes, ", "))
	role := c.Role
	if c.AllTenants {
		role += " of all tenants"
	}
	line("role", role)
	line("sends from", orWord(strings.Join(c.Senders, ", "), "every domain of the tenant"))
	if c.NullSender {
		line("", "and with an empty sender")
	}
	line("comes from", orWord(strings.Join(c.Networks, ", "), "everywhere"))
	for _, l := range c.Limits {
		line("limit", limitText(l))
	}
	line("made", c.Created.Local().Format("2006-01-02 15:04:05"))
	if c.Rotated != nil {
		line("rotated", c.Rotated.Local().Format("2006-01-02 15:04:05"))
	}
	if c.Expires != nil {
		line("expires", c.Expires.Local().Format("2006-01-02 15:04:05"))
	}
	used := "never"
	if c.LastUse != nil {
		used = age(c.LastUse, now) + " ago from " + c.LastFrom
	}
	line("last use", used)
}

func limitText(l api.Limit) string {
	subject := strings.ReplaceAll(l.Subject, "_", " ")
	if l.Max < 0 {
		return "any number of " + subject + " a " + l.Per
	}
	return fmt.Sprintf("%d %s a %s", l.Max, subject, l.Per)
}

func (a *app) credentialUpdateCommand() *cobra.Command {
	var f credentialFlags
	var ch api.CredentialChange
	var disable, enable, anySender, anyNetwork, noLimits, never bool
	c := &cobra.Command{
		Use:   "update NAME",
		Short: "Change what a credential may do; sessions that are open follow at once",
		Long: `Change what a credential may do; sessions that are open follow at once.

Lists are replaced whole: --sender and --domain together are the new senders.`,
		Example: `  godwit credential update app1 --disable
  godwit credential update app1 --network 192.0.2.0/24 --limit messages/day=50000
  godwit credential update app1 --any-sender`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeCredential,
		RunE: func(c *cobra.Command, args []string) error {
			if !changesAny(c) {
				return usagef("say what to change\nSee \"%s --help\"", c.CommandPath())
			}
			changed := c.Flags().Changed
			if changed("domain") || changed("sender") || anySender {
				list := append(append([]string{}, f.domains...), f.senders...) // an empty list is not "as it was"
				ch.Senders, ch.AssignDomains = &list, len(f.domains) > 0
			}
			if changed("network") || anyNetwork {
				list := append([]string{}, f.networks...)
				ch.Networks = &list
			}
			if changed("scope") {
				ch.Scopes = &f.scopes
			}
			if changed("limit") || noLimits {
				list, err := parseLimits(f.limits)
				if err != nil {
					return err
				}
				ch.Limits = &list
			}
			if changed("note") {
				ch.Note = &f.note
			}
			if changed("role") {
				ch.Role = &f.role
			}
			if changed("all-tenants") {
				ch.AllTenants = &f.allTenants
			}
			if changed("null-sender") {
				ch.NullSender = &f.nullSender
			}
			if ch.NeverExpires = never; f.expires != "" {
				t, err := parseExpiry(f.expires, time.Now())
				if err != nil {
					return err
				}
				ch.Expires = &t
			}
			if disable || enable {
				ch.Disabled = &disable
			}
			return a.ask(func(client *api.Client) error {
				after, err := client.UpdateCredential(c.Context(), args[0], ch)
				if err != nil {
					return err
				}
				return a.print(after, func(w io.Writer) { printCredential(w, &after, time.Now()) })
			})
		},
	}
	f.add(c)
	l := c.Flags()
	l.BoolVar(&disable, "disable", false, "let it in no more, until --enable")
	l.BoolVar(&enable, "enable", false, "undo --disable")
	l.BoolVar(&anySender, "any-sender", false, "it may send from every domain of the tenant")
	l.BoolVar(&anyNetwork, "any-network", false, "it may come from everywhere")
	l.BoolVar(&noLimits, "no-limits", false, "it has no limits of its own")
	l.BoolVar(&never, "never-expires", false, "it does not end by itself")
	c.MarkFlagsMutuallyExclusive("disable", "enable")
	c.MarkFlagsMutuallyExclusive("expires", "never-expires")
	return c
}

// changesAny reports whether a flag of the command's own is given, besides those that say which server is meant.
func changesAny(c *cobra.Command) bool {
	given := false
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { given = given || f.Changed })
	return given
}

func (a *app) credentialRotateCommand() *cobra.Command {
	var keep string
	var stdin bool
	c := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Replace the secret of a credential and show the new one, this once",
		Long: `Replace the secret of a credential and show the new one, this once.

Without --keep-old the old secret ends at once, and so do sessions that it opened, at their next message.`,
		Example: `  godwit credential rotate app1
  godwit credential rotate app1 --keep-old 24h`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeCredential,
		RunE: func(c *cobra.Command, args []string) error {
			var r api.Rotation
			if keep != "" {
				d, err := config.ParseDuration(keep)
				if err != nil || d < 0 {
					return usagef("--keep-old %q is no time such as 24h or 7d", keep)
				}
				r.KeepOldFor = int64(d / time.Second)
			}
			var err error
			if r.Password, err = a.readPassword(stdin); err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				made, err := client.RotateCredential(c.Context(), args[0], r)
				if err != nil {
					return err
				}
				return a.print(made, func(w io.Writer) { printSecret(w, &made, "has a new secret") })
			})
		},
	}
	c.Flags().StringVar(&keep, "keep-old", "", "the old secret is good for this `TIME` too, such as 24h")
	passwordFlag(c, &stdin)
	return c
}

func (a *app) credentialRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Remove a credential for ever; sessions that it opened end at their next message",
		Long: `Remove a credential for ever; sessions that it opened end at their next message.
"godwit credential update NAME --disable" can be undone.`,
		Example:           "  godwit credential revoke app1",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeCredential,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				gone, err := client.RevokeCredential(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(gone, func(w io.Writer) {
					fmt.Fprintf(w, "Credential %s of tenant %s is revoked.\n", gone.Login, gone.Tenant)
				})
			})
		},
	}
}

// completeCredential completes the first argument from the credentials of the running server.
func (a *app) completeCredential(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.completeFrom(c, args, begun, func(ctx context.Context, client *api.Client) ([]string, error) {
		list, err := client.Credentials(ctx, "")
		names := make([]string, len(list.Credentials))
		for i := range list.Credentials {
			names[i] = list.Credentials[i].Login
		}
		return names, err
	})
}

// completeFrom completes the first argument from what the running server answers within a second.
func (a *app) completeFrom(
	c *cobra.Command, args []string, begun string, names func(context.Context, *api.Client) ([]string, error),
) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	err := a.ask(func(client *api.Client) error {
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		list, err := names(ctx, client)
		for _, n := range list {
			if strings.HasPrefix(n, begun) {
				fit = append(fit, n)
			}
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}
