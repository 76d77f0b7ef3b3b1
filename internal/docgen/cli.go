package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// cliReference adds the man pages and the command reference to files, by asking the program itself.
func cliReference(files map[string][]byte) error {
	dir, err := os.MkdirTemp("", "docgen")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets := map[string]string{"markdown": cliDir, "man": manDir}
	args := []string{"run", "-buildvcs=false", "./cmd/godwit", "docs"}
	for kind := range targets {
		args = append(args, "--"+kind, filepath.Join(dir, kind))
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for kind, target := range targets {
		entries, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil {
			return err
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, kind, e.Name()))
			if err != nil {
				return err
			}
			files[path.Join(target, e.Name())] = data
		}
	}
	return nil
}
