package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/outbox"
	"github.com/godwit-mta/godwit/internal/seal"
)

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Encrypt what is kept on disk",
		Example: `  godwit key create /etc/godwit/master.key
  godwit key list
  godwit key rotate`,
	}
	c.AddCommand(a.keyCreateCommand(), a.keyListCommand(), a.keyRotateCommand(), a.keyRevealCommand())
	return a.serverFlags(c)
}

func (a *app) keyCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create FILE",
		Short: "Make a master key",
		Long: `Make a master key in a new file that only its owner may read, for encryption.key_file. Whoever loses it loses
all that was encrypted: keep a copy elsewhere, not with the backups of the data directory.

To change the master key, make a new one, put the old line below the new one in the configured file, and
run "godwit key rotate". Then the old line can go.`,
		Example: "  godwit key create /etc/godwit/master.key",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			text := seal.NewMaster()
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists; a key is never overwritten", args[0])
			}
			if err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			_, err = fmt.Fprintln(f, text)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			m, err := seal.ParseMasters([]byte(text))
			if err != nil {
				return err
			}
			made := struct {
				File string `json:"file"`
				ID   string `json:"id"`
			}{args[0], m[0].ID()}
			return a.print(made, func(w io.Writer) {
				fmt.Fprintf(w, "Master key %s is in %s.\n", made.ID, made.File)
				fmt.Fprintln(w, "Keep a copy elsewhere: without it nothing that was encrypted can be read.")
				fmt.Fprintf(w, "Next: set encryption: {key_file: %s} and restart the server.\n", made.File)
			})
		},
	}
}

func (a *app) keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys that data is encrypted with; keys themselves are never shown",
		Example: "  godwit key list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.Keys(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { a.printKeys(w, &list) })
			})
		},
	}
}

func (a *app) printKeys(w io.Writer, list *api.KeyList) {
	if list.Sealing {
		fmt.Fprintf(w, "What is written is encrypted; master key %s.\n", list.Master)
	} else {
		fmt.Fprintln(w, "What is written is not encrypted.")
	}
	if len(list.Data) == 0 {
		return
	}
	rows := [][]cell{{word("DATA KEY"), word("CREATED"), word("WRAPPED BY")}}
	for _, k := range list.Data {
		rows = append(rows, []cell{word(k.ID), word(k.Created.Local().Format("2006-01-02 15:04:05")), word(k.Master)})
	}
	fmt.Fprint(w, table(rows, a.columns()))
}

func (a *app) keyRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Encrypt with a new data key from now on, and read the master key again",
		Long: `Have the running server read its master keys again, wrap all data keys with the first of them, and encrypt
what it writes from now on with a new data key. What was written before stays readable.`,
		Example: "  godwit key rotate",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(func(client *api.Client) error {
				list, err := client.RotateKeys(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { a.printKeys(w, &list) })
			})
		},
	}
}

func (a *app) keyRevealCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reveal FILE...",
		Short: "Print event log files with their encrypted events in clear",
		Long: `Print event log files, compressed or not, with encrypted events in clear. The master key and the data directory are
those of the configuration; the server may run.`,
		Example: "  godwit key reveal /var/lib/godwit/events/*.jsonl* | jq 'select(.type == \"bounced\")'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.dataConfig()
			if err != nil {
				return err
			}
			keys, err := daemon.OpenKeys(c.Context(), cfg)
			if err != nil {
				return err
			}
			var s outbox.Sealer
			if keys != nil {
				s = keys
			}
			closed := 0
			for _, path := range args {
				n, err := outbox.Reveal(c.Context(), a.out, path, s)
				if err != nil {
					return err
				}
				closed += n
			}
			if closed > 0 {
				return fmt.Errorf("%s could not be decrypted", count(closed, "event", "events"))
			}
			return nil
		},
	}
}

// dataConfig returns the configuration with the data directory that the flags mean.
func (a *app) dataConfig() (*config.Config, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if a.dataDir != "" {
		cfg.DataDir = a.dataDir
	}
	return cfg, nil
}
