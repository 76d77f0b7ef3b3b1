package floors

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// statuses are what a row of docs/rfc.md may say about an RFC.
var statuses = []string{"full", "partial", "parsing", "background"}

// TestEveryRFCIsListed wants each RFC that the code cites to have its row in docs/rfc.md: number, title, status,
// packages.
func TestEveryRFCIsListed(t *testing.T) {
	t.Parallel()
	all := list(t)
	table, err := os.ReadFile("../../docs/rfc.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| \[?(\d+)\]?[^|]*\| ([^|]+) \| (\w+) \| ([^|]*) \|`)
	known := make(map[string]bool)
	for _, m := range row.FindAllStringSubmatch(string(table), -1) {
		known[m[1]] = true
		if !slices.Contains(statuses, m[3]) {
			t.Errorf("docs/rfc.md: RFC %s has status %q, want one of %s", m[1], m[3], strings.Join(statuses, ", "))
		}
	}
	if len(known) == 0 {
		t.Fatal("docs/rfc.md has no rows")
	}
	cited := regexp.MustCompile(`\bRFC (\d{3,5})\b`)
	for _, p := range all {
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			for _, m := range cited.FindAllSubmatch(data, -1) {
				if n := string(m[1]); !known[n] {
					t.Errorf("%s cites RFC %s, which docs/rfc.md does not list", file, n)
					known[n] = true // once is enough
				}
			}
		}
	}
}
