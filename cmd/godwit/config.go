package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Write and check the configuration file, show what is in force, print its schema",
	}
	a.configFlag(c)
	c.AddCommand(a.configInitCommand(), a.configCheckCommand(), a.configShowCommand(), a.configSchemaCommand())
	return c
}

// checked is the answer of "config check" for programs.
type checked struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok"`
	Problems []config.Problem `json:"problems"`
	Advice   []config.Problem `json:"advice"`
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a file and say for each mistake the line and what to write instead",
		Example: `  godwit config check
  godwit config check godwit.yaml --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := a.configPath
			if len(args) == 1 {
				path = args[0]
			}
			if len(args) == 1 && a.configPath != "" {
				return usagef("the file is given twice, as %q and with --config %q", args[0], a.configPath)
			}
			if path == "" {
				path = defaultConfigPath
			}
			cfg, err := config.Load(path)
			res := checked{File: path, OK: err == nil, Problems: []config.Problem{}, Advice: []config.Problem{}}
			var problems config.Problems
			switch {
			case errors.As(err, &problems):
				res.Problems = problems
			case errors.Is(err, fs.ErrNotExist) && path == defaultConfigPath:
				return fmt.Errorf("there is no %s; name another file: godwit config check FILE", path)
			case err != nil:
				return err
			default:
				res.Advice = append(res.Advice, cfg.Advice()...)
			}
			perr := a.print(res, func(w io.Writer) {
				for _, p := range res.Problems {
					fmt.Fprintln(w, p.Error())
				}
				for _, p := range res.Advice {
					fmt.Fprintf(w, "advice: %s\n", p.Error())
				}
				if res.OK {
					fmt.Fprintf(w, "%s is good.\n", path)
					return
				}
				fmt.Fprintf(w, "%s has %s.\n", path, count(len(res.Problems), "mistake", "mistakes"))
			})
			if perr == nil && !res.OK {
				return errSilent
			}
			return perr
		},
	}
}

func (a *app) configShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show every value in force and where it comes from",
		Example: `  godwit config show
  godwit config show --config godwit.yaml --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.loadConfig()
			if err != nil {
				return err
			}
			if a.json {
				return a.print(cfg.Values(), nil)
			}
			return cfg.Show(a.out)
		},
	}
}

func (a *app) configSchemaCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file, for editors",
		Long: "Print the JSON Schema of the configuration file. An editor with YAML support completes and checks\n" +
			"keys once the file begins with\n\n  # yaml-language-server: $schema=godwit.schema.json",
		Example: "  godwit config schema --output godwit.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				_, err := io.WriteString(a.out, config.Schema())
				return err
			}
			if err := os.WriteFile(out, []byte(config.Schema()), 0o644); err != nil {
				return fmt.Errorf("write schema: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write instead of printing")
	return c
}
