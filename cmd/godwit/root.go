package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
)

// app is what all subcommands share: where they read and write, and the flags that many have.
type app struct {
	self     string // how the program was called
	in       io.Reader
	out, err io.Writer

	json       bool
	configPath string
	dataDir    string
	socket     string
}

// defaultConfigPath is read when --config is not given and it exists.
const defaultConfigPath = "/etc/godwit/godwit.yaml"

// errSilent ends the program with status 1 when everything has been said already.
var errSilent = errors.New("said already")

// run executes the command line and returns the exit status: 0, 1 for a failure, 2 for a command line that makes no
// sense.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSilent):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "godwit: %v\n", err)
		return 2
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(a.err, "godwit: interrupted")
		return 1
	}
	fmt.Fprintf(a.err, "godwit: %v\n", err)
	return 1
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "godwit",
		Short: "An outbound mail server that keeps every message safe and explains what happened to it",
		Long: `Godwit takes mail from applications over SMTP, keeps it on stable storage, delivers it
to the internet, and explains what happened to every message.

New here? "godwit demo" shows the whole road in a minute: real sessions, real DNS,
simulated mailbox providers, nothing to set up and nothing that leaves this machine.`,
		Example: `  godwit demo                                     see it work
  godwit serve --config /etc/godwit/godwit.yaml   run it
  godwit queue list                               what waits, and why
  godwit message show 06bq3k1c5g0000g40r10        one message's whole story`,
		Version:       readBuild().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON for programs instead of text for people")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "look", Title: "Look and act (on a running server):"},
		&cobra.Group{ID: "access", Title: "Say who may send (on a running server):"},
		&cobra.Group{ID: "test", Title: "Try and measure:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", a.serveCommand(), a.configCommand(), a.certCommand(), a.reloadCommand())
	add("look", a.queueCommand(), a.messageCommand(), a.limitCommand(), a.doctorCommand(), a.reportsCommand(), a.spoolCommand(), a.tlsCommand())
	add("access", a.credentialCommand(), a.domainCommand(), a.tenantCommand(), a.banCommand(), a.auditCommand(), a.keyCommand(), a.dkimCommand())
	add("test", a.demoCommand(), a.sendCommand(), a.sinkCommand(), a.loadCommand(), a.verifyCommand())
	add("more", a.versionCommand(), a.docsCommand())
	root.SetCompletionCommandGroupID("more")
	root.SetHelpCommandGroupID("more")
	finish(root)
	return root
}

// configFlag gives c and what is below it the flag that names the configuration file.
func (a *app) configFlag(c *cobra.Command) {
	c.PersistentFlags().StringVarP(&a.configPath, "config", "c", "",
		"configuration `FILE` (default "+defaultConfigPath+" if it exists)")
	_ = c.MarkPersistentFlagFilename("config", "yaml", "yml") // the flag exists
}

func (a *app) dataDirFlag(c *cobra.Command) {
	c.PersistentFlags().StringVar(&a.dataDir, "data-dir", "", "data `DIR`, instead of the configuration's")
	_ = c.MarkPersistentFlagDirname("data-dir") // the flag exists
}

// serverFlags gives c and what is below it the flags that say which running server is meant.
func (a *app) serverFlags(c *cobra.Command) *cobra.Command {
	a.configFlag(c)
	a.dataDirFlag(c)
	c.PersistentFlags().StringVar(&a.socket, "socket", "",
		"admin socket `FILE` of the server (default admin.sock in its data directory)")
	return c
}

// client returns a client for the running server that the flags mean.
func (a *app) client() (*api.Client, error) {
	path, err := a.socketPath()
	if err != nil {
		return nil, err
	}
	return api.NewSocketClient(path), nil
}

func (a *app) socketPath() (string, error) {
	if a.socket != "" {
		return a.socket, nil
	}
	dir, err := a.dataDirectory()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "admin.sock"), nil
}

// dataDirectory returns the data directory that the flags mean.
func (a *app) dataDirectory() (string, error) {
	if a.dataDir != "" {
		return a.dataDir, nil
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return "", err
	}
	return cfg.DataDir, nil
}

// loadConfig reads the file that --config names, or the usual one if it exists, or takes the defaults.
func (a *app) loadConfig() (*config.Config, error) {
	path := a.configPath
	if path == "" {
		if _, err := os.Stat(defaultConfigPath); errors.Is(err, fs.ErrNotExist) {
			return config.Default(), nil
		}
		path = defaultConfigPath
	}
	return config.Load(path)
}

// print writes v as JSON, or calls text to write it for people.
func (a *app) print(v any, text func(io.Writer)) error {
	if !a.json {
		text(a.out)
		return nil
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
