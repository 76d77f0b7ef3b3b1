package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// docsCommand writes the command line's own documentation; packagers and "make generate" use it.
func (a *app) docsCommand() *cobra.Command {
	var man, markdown string
	c := &cobra.Command{
		Use:    "docs",
		Short:  "Write man pages and the command reference",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			if man == "" && markdown == "" {
				return usagef("say where: --man DIR, --markdown DIR")
			}
			if man != "" {
				if err := os.MkdirAll(man, 0o755); err != nil {
					return fmt.Errorf("make folder: %w", err)
				}
				// A fixed date keeps generated files equal from one day to the next.
				date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
				head := &doc.GenManHeader{Title: "GODWIT", Section: "1", Source: "Godwit", Manual: "Godwit", Date: &date}
				if err := doc.GenManTree(root, head, man); err != nil {
					return fmt.Errorf("write man pages: %w", err)
				}
			}
			if markdown != "" {
				if err := os.MkdirAll(markdown, 0o755); err != nil {
					return fmt.Errorf("make folder: %w", err)
				}
				if err := doc.GenMarkdownTree(root, markdown); err != nil {
					return fmt.Errorf("write reference: %w", err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&man, "man", "", "folder for man pages")
	c.Flags().StringVar(&markdown, "markdown", "", "folder for Markdown")
	return c
}
