package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// usageTemplate is what follows the description in the help of each command.
const usageTemplate = `Usage:
  {{.UseLine}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$all := .Commands}}{{if .Groups}}{{range $group := .Groups}}

{{.Title}}{{range $all}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{else}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Common flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells more about a command.{{end}}
`

// finish gives every command of the tree what all have in common: whatever is wrong with a command line is told in the
// same way and ends with status 2.
func finish(root *cobra.Command) {
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableSuggestions = true // commandError suggests
	each(root, func(c *cobra.Command) {
		c.SuggestionsMinimumDistance = 2
		if c.Name() == "completion" {
			c.Short = "Print a script that lets your shell complete commands"
		}
		switch want := c.Args; {
		case c.HasSubCommands():
			c.Use = c.Name() + " COMMAND"
			c.DisableFlagsInUseLine = true
			c.Args = commandError
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		case c.Name() == cobra.ShellCompRequestCmd, want == nil:
		default:
			c.Args = func(c *cobra.Command, args []string) error { return argsError(c, args, want) }
		}
	})
}

func each(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		each(sub, do)
	}
}

// commandError complains of a word where a subcommand is expected.
func commandError(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("\nDid you mean %q?", c.CommandPath()+" "+strings.Join(near, " or "))
	}
	return usagef("%q is no command of %q%s\nSee \"%s --help\"", args[0], c.CommandPath(), hint, c.CommandPath())
}

func argsError(c *cobra.Command, args []string, want cobra.PositionalArgs) error {
	err := want(c, args)
	var usage *usageError
	switch {
	case err == nil, errors.As(err, &usage):
		return err
	case len(args) > 0:
		return usagef("%q takes no argument %q\nSee \"%s --help\"", c.CommandPath(), args[len(args)-1], c.CommandPath())
	}
	return usagef("%w\nSee \"%s --help\"", err, c.CommandPath())
}

// exactly asks for one argument after the other; words name them.
func exactly(words ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(words) {
			got := ""
			if len(args) > 0 {
				got = ", got " + count(len(args), "argument", "arguments")
			}
			return usagef("%q needs %s%s\nSee \"%s --help\"", c.CommandPath(), strings.Join(words, " and "), got,
				c.CommandPath())
		}
		return nil
	}
}

func flagError(c *cobra.Command, err error) error {
	text := err.Error()
	var number *strconv.NumError
	if errors.As(err, &number) {
		if before, _, ok := strings.Cut(text, ": strconv."); ok {
			text = before + ": not a number that fits"
		}
	}
	return usagef("%s\nSee \"%s --help\"", text, c.CommandPath())
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about any command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil {
				return &usageError{err}
			}
			if len(rest) > 0 {
				return commandError(about, rest)
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			about, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range about.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name()+"\t"+sub.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}
