// Command docgen writes the reference documents that come from code. It runs at the root of the repository: `make
// generate` rewrites the files, `make check` runs it with -check, which writes nothing and fails if a file is not what
// the code says.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
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
		if err := os.WriteFile(name, files[name], 0o644); err != nil {
			return err
		}
	}
	if stale > 0 {
		return fmt.Errorf("%d files are not what the code says; run make generate", stale)
	}
	return nil
}
