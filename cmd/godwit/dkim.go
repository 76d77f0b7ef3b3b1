package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
)

func (a *app) dkimCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dkim",
		Short: "Keep the keys that sign mail: make, publish, check and replace them",
		Example: `  godwit dkim create example.com
  godwit dkim check example.com
  godwit dkim rotate example.com`,
	}
	c.AddCommand(
		a.dkimCreateCommand(), a.dkimImportCommand(), a.dkimListCommand(), a.dkimShowCommand(), a.dkimRecordsCommand(),
		a.dkimCheckCommand(), a.dkimPublishCommand(), a.dkimRotateCommand(), a.dkimActivateCommand(), a.dkimRetireCommand(),
		a.dkimRevokeCommand(),
	)
	return a.serverFlags(c)
}

func (a *app) dkimCreateCommand() *cobra.Command {
	var n api.NewDKIMKeys
	c := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Make the keys of a domain, and show the records that they need",
		Long: `Make the keys of a domain, one for each algorithm (RSA and Ed25519), and show the records that they need. With
dkim.publish in the configuration the server writes them into DNS itself.

The keys sign from the moment that every resolver has seen the records. The private keys stay in the server.`,
		Example: `  godwit dkim create example.com
  godwit dkim create shop.example --tenant shop --algorithm rsa`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			n.Domain = args[0]
			for i, name := range n.Algorithms {
				n.Algorithms[i] = longAlgorithm(name)
			}
			return a.ask(func(client *api.Client) error {
				list, err := client.CreateDKIMKeys(c.Context(), n)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					fmt.Fprintf(w, "%s of %s made.\n", count(len(list.Keys), "key", "keys"), n.Domain)
					printWork(w, list.Keys)
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&n.Tenant, "tenant", "", "the `TENANT` whose mail they sign (default that of everybody whose domain it is)")
	f.StringSliceVar(&n.Algorithms, "algorithm", nil, "`ALGORITHM` rsa or ed25519; may be repeated (default dkim.algorithms)")
	f.StringVar(&n.Selector, "selector", "", "the `SELECTOR`, with one algorithm only (default one that tells the month)")
	complete(c, "algorithm", "rsa", "ed25519")
	return c
}

// longAlgorithm turns the word of the configuration into that of signatures.
func longAlgorithm(name string) string {
	if name == "rsa" || name == "ed25519" {
		return name + "-sha256"
	}
	return name
}

func shortAlgorithm(name string) string { return strings.TrimSuffix(name, "-sha256") }

func (a *app) dkimImportCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "import DOMAIN SELECTOR FILE",
		Short: "Take over a key that was made elsewhere",
		Long: `Take over a private key that was made elsewhere: PEM, as opendkim-genkey and openssl write it, or 32 octets in
base64 (Ed25519). The server keeps a copy and never needs the file again. The key signs when its record is seen;
one that signs already for the domain goes on until then.`,
		Example: "  godwit dkim import example.com mail /etc/opendkim/keys/example.com/mail.private",
		Args:    exactly("DOMAIN", "SELECTOR", "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[2])
			if err != nil {
				return err
			}
			return a.ask(func(client *api.Client) error {
				k, err := client.ImportDKIMKey(c.Context(), api.ImportedDKIMKey{
					Domain: args[0], Selector: args[1], Tenant: tenant, PrivateKey: string(text),
				})
				if err != nil {
					return err
				}
				return a.print(k, func(w io.Writer) {
					fmt.Fprintf(w, "Key %s of %s is taken over.\n", k.Selector, k.Domain)
					printWork(w, []api.DKIMKey{k})
				})
			})
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "the `TENANT` whose mail it signs (default that of everybody whose domain it is)")
	return c
}

func (a *app) dkimListCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "List keys, what they do, and what is wrong with them",
		Example: `  godwit dkim list
  godwit dkim list example.com --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.DKIMKeys(c.Context(), firstOf(args), tenant)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printDKIMKeys(w, list.Keys, time.Now(), a.columns()) })
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	return c
}

func firstOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func printDKIMKeys(w io.Writer, list []api.DKIMKey, now time.Time, columns int) {
	if len(list) == 0 {
		fmt.Fprintln(w, "There are no keys: make some with \"godwit dkim create DOMAIN\".")
		return
	}
	rows := [][]cell{{word("DOMAIN"), word("SELECTOR"), word("TENANT"), word("ALGORITHM"), word("STATE"), word("SIGNS"), word("CHECKED"), word("FOUND")}}
	for i := range list {
		k := &list[i]
		signs, checked := "no", "-"
		if k.Signs {
			signs = "yes"
		}
		if k.Checked != nil {
			checked = age(k.Checked, now) + " ago"
		}
		rows = append(rows, []cell{
			word(k.Domain), word(k.Selector), word(orWord(k.Tenant, "-")), word(shortAlgorithm(k.Algorithm)), word(k.State), word(signs), word(checked),
			word(k.Problem),
		})
	}
	fmt.Fprint(w, table(rows, columns))
}

func (a *app) dkimShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show DOMAIN SELECTOR",
		Short:   "Show one key: its life so far, its record, and what is to be done",
		Example: "  godwit dkim show example.com s202611r",
		Args:    exactly("DOMAIN", "SELECTOR"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				k, err := client.DKIMKey(c.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				return a.print(k, func(w io.Writer) { printDKIMKey(w, &k) })
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
}

// places says where a private key is.
var places = map[string]string{
	"configuration": "in a file of the configuration", "command": "a command of the configuration signs", "store": "in the server's store, encrypted",
	"file": "in a file that only the server may read",
}

func printDKIMKey(w io.Writer, k *api.DKIMKey) {
	signs := ""
	switch {
	case k.Instead:
		signs = ", signs in place of another key, whose record is not in DNS"
	case k.Signs:
		signs = ", signs"
	case k.State == "signing":
		signs = ", but does not sign"
	}
	fmt.Fprintf(w, "%s of %s: %s%s\n", k.Selector, k.Domain, k.State, signs)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	line("algorithm", "%s, %d bits", k.Algorithm, k.Bits)
	if k.Tenant != "" {
		line("tenant", "%s", k.Tenant)
	}
	line("private key", "%s", orWord(places[k.Place], "destroyed"))
	for _, t := range []struct {
		name string
		at   *time.Time
	}{
		{"created", k.Created}, {"first seen", k.Published}, {"verified", k.Verified}, {"activated", k.Activated}, {"retired", k.Retired},
		{"revoked", k.Revoked}, {"checked", k.Checked}, {"last good", k.Good},
	} {
		if t.at != nil {
			line(t.name, "%s", moment(t.at))
		}
	}
	if k.Problem != "" {
		line("found", "%s", k.Problem)
	}
	printWork(w, []api.DKIMKey{*k})
}

func moment(t *time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func (a *app) dkimRecordsCommand() *cobra.Command {
	var tenant string
	var zone bool
	c := &cobra.Command{
		Use:   "records DOMAIN",
		Short: "Show which records are to be put into DNS, kept, replaced or removed, and when",
		Long: `Show which records are to be put into DNS, kept, replaced or removed, and until when. Each is shown as it is written
into a zone file, in strings of at most 255 octets, and in one piece, as web consoles want it.`,
		Example: `  godwit dkim records example.com
  godwit dkim records example.com --zone >> /etc/bind/dkim.example.com`,
		Args: exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.DKIMKeys(c.Context(), args[0], tenant)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					if zone {
						for i := range list.Keys {
							if text := list.Keys[i].Record.Zone; text != "" {
								fmt.Fprintln(w, text)
							}
						}
						return
					}
					if len(list.Keys) == 0 {
						fmt.Fprintf(w, "%s has no keys: make some with \"godwit dkim create %s\".\n", args[0], args[0])
						return
					}
					printRecords(w, list.Keys)
				})
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	c.Flags().BoolVar(&zone, "zone", false, "nothing but the records that there are to be now, for a zone file")
	return c
}

// headings say what is to be done in DNS, in the order of work.
var headings = []struct{ act, byHand, automatic string }{
	{"put", "To be put into DNS:", "The server puts into DNS:"},
	{"replace", "To be replaced by this, which says that the key is revoked:", "The server replaces by this, which says that the key is revoked:"},
	{"remove", "To be removed from DNS:", "The server removes from DNS:"},
	{"keep", "To be kept in DNS:", "In DNS, and kept by the server:"},
}

// printRecords shows all records, sorted by what is to be done about them.
func printRecords(w io.Writer, list []api.DKIMKey) {
	first := true
	for _, h := range headings {
		for _, automatic := range []bool{false, true} {
			some := slices.DeleteFunc(slices.Clone(list), func(k api.DKIMKey) bool { return k.Task.Act != h.act || k.Task.Automatic != automatic })
			if len(some) == 0 {
				continue
			}
			heading := h.byHand
			if automatic {
				heading = h.automatic
			}
			if !first {
				fmt.Fprintln(w)
			}
			first = false
			fmt.Fprintln(w, heading)
			for i := range some {
				printRecord(w, &some[i])
			}
		}
	}
}

func printRecord(w io.Writer, k *api.DKIMKey) {
	fmt.Fprintln(w)
	if k.Record.Text == "" {
		fmt.Fprintf(w, "  %s. TXT\n", k.Record.Name)
	} else {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(k.Record.Zone, "\n", "\n  "))
		fmt.Fprintf(w, "\n  or in one piece, for a web console:\n\n  name   %s\n  type   TXT\n  value  %s\n", k.Record.Name, k.Record.Text)
	}
	switch {
	case k.Task.Until != nil && k.Task.Act == "keep":
		fmt.Fprintf(w, "\n  Keep it until %s; then \"godwit dkim records %s\" says what takes its place.\n", moment(k.Task.Until), k.Domain)
	case k.Task.Until != nil && k.Task.Act == "replace":
		fmt.Fprintf(w, "\n  It can be removed on %s.\n", moment(k.Task.Until))
	}
	if k.PublishError != "" {
		fmt.Fprintf(w, "\n  The server could not write it: %s.\n", k.PublishError)
	}
}

// printWork says what is to be done about keys, after something was done to them.
func printWork(w io.Writer, list []api.DKIMKey) {
	var work []api.DKIMKey
	waits := false
	for i := range list {
		k := &list[i]
		if k.Task.Act != "keep" || k.PublishError != "" {
			work = append(work, *k)
		}
		waits = waits || !k.Signs && (k.State == "published" || k.State == "created")
		switch {
		case k.State == "signing" && k.Signs:
			fmt.Fprintf(w, "%s signs.\n", k.Selector)
		case k.State == "verified":
			fmt.Fprintf(w, "%s is in DNS, and signs in place of the older key after dkim.activate_after; \"godwit dkim activate %s %s\" does not wait.\n",
				k.Selector, k.Domain, k.Selector)
		case k.State == "retiring" && k.Task.Until != nil:
			fmt.Fprintf(w, "%s signs no more. Mail that it signed may still be under way: keep its record until %s.\n", k.Selector, moment(k.Task.Until))
		case k.State == "published":
			fmt.Fprintf(w, "%s was seen, but not everywhere: %s.\n", k.Selector, k.Problem)
		case k.Problem != "" && k.State != "created":
			fmt.Fprintf(w, "%s: %s.\n", k.Selector, k.Problem)
		}
	}
	if len(work) > 0 {
		fmt.Fprintln(w)
		printRecords(w, work)
	}
	if waits {
		fmt.Fprintf(w, "\nThe server looks for new records every minute at first, and the keys sign when all resolvers have them.\n"+
			"To look now:\n\n  godwit dkim check %s\n", list[0].Domain)
	}
}

func (a *app) dkimCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check DOMAIN [SELECTOR]",
		Short: "Look now whether DNS shows the records; status 1 if something is missing or wrong",
		Long: `Look now whether DNS shows the records of a domain's keys. Keys that wait for it move on. The exit status is 1 if a
record is missing or wrong, or DNS gave no answer.`,
		Example: "  godwit dkim check example.com",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.CheckDKIMKeys(c.Context(), args[0], firstOf(args[1:]))
				if err != nil {
					return err
				}
				if err := a.print(list, func(w io.Writer) {
					printDKIMKeys(w, list.Keys, time.Now(), a.columns())
					printWork(w, list.Keys)
				}); err != nil {
					return err
				}
				if slices.ContainsFunc(list.Keys, func(k api.DKIMKey) bool { return k.Problem != "" }) {
					return errSilent
				}
				return nil
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
	return c
}

func (a *app) dkimPublishCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "publish DOMAIN [SELECTOR]",
		Short: "Have the server write the records into DNS now",
		Long: `Have the server write the records of a domain's keys into DNS now, whatever is there, as dkim.publish of the
configuration says. It does so by itself when a record is new or was changed by somebody else.`,
		Example: "  godwit dkim publish example.com",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.PublishDKIMKeys(c.Context(), args[0], firstOf(args[1:]))
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					fmt.Fprintf(w, "%s written.\n", count(len(list.Keys), "record", "records"))
					printDKIMKeys(w, list.Keys, time.Now(), a.columns())
				})
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
}

func (a *app) dkimRotateCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Replace the keys of a domain by new ones, without a message unsigned in between",
		Long: `Make new keys for a domain. The old ones sign until the records of the new ones have been seen everywhere for
dkim.activate_after; then they retire, and are revoked when no mail that they signed can be under way any more. With
dkim.publish all of that happens by itself; without, put the records into DNS that are shown. "godwit dkim records
DOMAIN" tells at any time what is to be there.`,
		Example: "  godwit dkim rotate example.com",
		Args:    exactly("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.RotateDKIMKeys(c.Context(), args[0], tenant)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					fmt.Fprintf(w, "%s of %s made. The old ones sign until the new ones are seen.\n", count(len(list.Keys), "new key", "new keys"), args[0])
					printWork(w, list.Keys)
				})
			})
		},
		ValidArgsFunction: a.completeDKIM,
	}
	c.Flags().StringVar(&tenant, "tenant", "", "the `TENANT` whose keys they are (default those without a tenant)")
	return c
}

// changeDKIM makes a command that changes one key.
func (a *app) changeDKIM(c *cobra.Command, change func(c *cobra.Command, client *api.Client, domain, selector string) (api.DKIMKey, error)) *cobra.Command {
	c.Args = exactly("DOMAIN", "SELECTOR")
	c.ValidArgsFunction = a.completeDKIM
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.ask(func(client *api.Client) error {
			k, err := change(c, client, args[0], args[1])
			if err != nil {
				return err
			}
			return a.print(k, func(w io.Writer) { printDKIMKey(w, &k) })
		})
	}
	return c
}

func (a *app) dkimActivateCommand() *cobra.Command {
	var force bool
	c := a.changeDKIM(&cobra.Command{
		Use:     "activate DOMAIN SELECTOR",
		Short:   "Let a key sign now, in place of the one that does",
		Long:    `Let a key sign now, without waiting for dkim.activate_after. Every resolver must have seen its record.`,
		Example: "  godwit dkim activate example.com s202611r",
	}, func(c *cobra.Command, client *api.Client, domain, selector string) (api.DKIMKey, error) {
		return client.ActivateDKIMKey(c.Context(), domain, selector, force)
	})
	c.Flags().BoolVar(&force, "force", false, "although not all resolvers have seen its record")
	return c
}

func (a *app) dkimRetireCommand() *cobra.Command {
	var force bool
	c := a.changeDKIM(&cobra.Command{
		Use:     "retire DOMAIN SELECTOR",
		Short:   "Let a key sign no more; its record is needed a while longer",
		Example: "  godwit dkim retire example.com s202605r",
	}, func(c *cobra.Command, client *api.Client, domain, selector string) (api.DKIMKey, error) {
		return client.RetireDKIMKey(c.Context(), domain, selector, force)
	})
	c.Flags().BoolVar(&force, "force", false, "although it is the last key that signs for the domain")
	return c
}

func (a *app) dkimRevokeCommand() *cobra.Command {
	return a.changeDKIM(&cobra.Command{
		Use:   "revoke DOMAIN SELECTOR",
		Short: "End a key at once and for good, as when it may be known to others",
		Long: `End a key at once and for good: it signs no more, its private key is destroyed, and its record is to say so. Mail
that it signed and that is still under way cannot be verified any more. To replace a key without that, use
"godwit dkim rotate".`,
		Example: "  godwit dkim revoke example.com s202605r",
	}, func(c *cobra.Command, client *api.Client, domain, selector string) (api.DKIMKey, error) {
		return client.RevokeDKIMKey(c.Context(), domain, selector)
	})
}

// completeDKIM completes a domain and a selector from the keys of the running server.
func (a *app) completeDKIM(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeFrom(c, nil, begun, func(ctx context.Context, client *api.Client) ([]string, error) {
		list, err := client.DKIMKeys(ctx, firstOf(args), "")
		var names []string
		for i := range list.Keys {
			if len(args) == 1 {
				names = append(names, list.Keys[i].Selector)
			} else if !slices.Contains(names, list.Keys[i].Domain) {
				names = append(names, list.Keys[i].Domain)
			}
		}
		return names, err
	})
}
