package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	rfcCitation = regexp.MustCompile(`\bRFC (\d{3,5})\b`)
	rfcRow      = regexp.MustCompile(`^\| (?:\[(\d+)\]\([^)]*\)|(\d+)) \| ([^|]+) \| (\w+) \|[^|]*\| ?([^|]*)\|$`)
)

// rfcTable fills the packages of each row of the RFC table from the citations in Go code. Numbers, titles, statuses and
// notes are people's.
func rfcTable(file string) ([]byte, error) {
	cited, err := citations(".")
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for line := range strings.Lines(string(old)) {
		m := rfcRow.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			out.WriteString(line)
			continue
		}
		n, err := strconv.Atoi(m[1] + m[2])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "| [%d](https://www.rfc-editor.org/rfc/rfc%d) | %s | %s | %s | %s |\n",
			n, n, m[3], m[4], strings.Join(cited[n], ", "), strings.TrimSpace(m[5]))
		delete(cited, n)
	}
	if len(cited) > 0 {
		return nil, fmt.Errorf("%s has no row for RFCs that are cited: %v", file, cited)
	}
	return []byte(out.String()), nil
}

// citations returns the packages that cite each RFC, tests left out.
func citations(dir string) (map[int][]string, error) {
	cited := make(map[int][]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "tools" || d.Name() == "testdata" || len(d.Name()) > 1 && d.Name()[0] == '.'):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		for _, m := range rfcCitation.FindAllSubmatch(data, -1) {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				return err
			}
			if !slices.Contains(cited[n], pkg) {
				cited[n] = append(cited[n], pkg)
			}
		}
		return nil
	})
	return cited, err
}
