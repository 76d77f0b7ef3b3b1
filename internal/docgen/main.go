// Command docgen writes the reference documents that come from code. It runs at the root of the repository: `make
// generate` rewrites the files, `make check` runs it with -check, which writes nothing and fails if a file is not what
// the code says.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
)

// Folders that hold generated files alone: what is not generated any more is deleted from them.
const (
	cliDir = "docs/reference/cli"
	manDir = "docs/man"
)

func main() {
	check := flag.Bool("check", false, "compare instead of writing; print the files that differ and fail")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	files, err := generate()
	if err != nil {
		return err
	}
	stale := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		old, err := os.ReadFile(name)
		if err == nil && bytes.Equal(old, files[name]) {
			continue
		}
		if check {
			fmt.Println(name)
			stale++
			continue
		}
		if err := write(name, files[name]); err != nil {
			return err
		}
	}
	leftovers, err := leftoversOf(files)
	if err != nil {
		return err
	}
	for _, name := range leftovers {
		if check {
			fmt.Println(name)
			stale++
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	if stale > 0 {
		return fmt.Errorf("%d files are not what the code says; run make generate", stale)
	}
	return nil
}

func write(name string, data []byte) error {
	if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// leftoversOf lists files in folders of generated files that are not generated any more.
func leftoversOf(files map[string][]byte) ([]string, error) {
	var found []string
	for _, dir := range []string{cliDir, manDir} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if name := path.Join(dir, e.Name()); files[name] == nil {
				found = append(found, name)
			}
		}
	}
	return found, nil
}
