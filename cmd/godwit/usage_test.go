package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp holds every command to the same manners: one line that tells, an example that can be copied, lines that fit
// a terminal, and a complaint with status 2 about flags that nobody knows.
func TestHelp(t *testing.T) {
	t.Parallel()
	root := (&app{}).rootCommand()
	each(root, func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		if c.Name() == "help" || c.Hidden {
			return
		}
		own := len(path) == 0 || path[0] != "completion" // cobra wrote the others
		if own && (c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 100) {
			t.Errorf("%s: short text %q", c.CommandPath(), c.Short)
		}
		if own && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if c.Example != "" && !strings.Contains(line, c.CommandPath()) && c != root {
				t.Errorf("%s: example %q is of something else", c.CommandPath(), line)
			}
		}
		status, out, errs := run(t, "", append(path, "--help")...)
		if status != 0 || errs != "" || !strings.Contains(out, "Usage:\n  "+c.CommandPath()) {
			t.Errorf("%s --help: status %d, %q\n%s", c.CommandPath(), status, errs, out)
		}
		for line := range strings.SplitSeq(out, "\n") {
			if own && len(line) > 120 {
				t.Errorf("%s --help: %d columns in %q", c.CommandPath(), len(line), line)
			}
		}
		status, out, errs = run(t, "", append(path, "--no-such-flag")...)
		if status != 2 || out != "" || !strings.Contains(errs, `See "`+c.CommandPath()+` --help"`) {
			t.Errorf("%s --no-such-flag: status %d, %q", c.CommandPath(), status, errs)
		}
	})
}

func TestExamplesParse(t *testing.T) {
	t.Parallel()
	root := (&app{}).rootCommand()
	each(root, func(c *cobra.Command) {
		if c.CommandPath() == "godwit" || strings.Contains(c.CommandPath(), " completion") {
			return
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			_, words, ok := strings.Cut(line, "godwit ")
			if !ok {
				continue
			}
			for _, shell := range []string{" <", " >", " |"} {
				words, _, _ = strings.Cut(words, shell)
			}
			found, rest, err := root.Find(splitWords(words))
			if err != nil {
				t.Errorf("%q: %v", line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%q: %v", line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

// splitWords splits as a shell does, as far as examples need it.
func splitWords(s string) []string {
	var words []string
	for i, part := range strings.Split(s, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

func TestExplainDial(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"localhost": "is not HOST:PORT", "::1:25": "is not HOST:PORT", ":25": "HOST:PORT with a port",
		"mx.example:": "with a port", "mx.example:x": "with a port", "mx.example:0": "with a port",
		"mx.example:65536": "with a port",
	} {
		if err := checkAddress("--server", address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:25", "mx.example:65535"} {
		if err := checkAddress("--server", address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
