package floors

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// listed is what `go list -json` says of one package.
type listed struct {
	ImportPath, Dir, Name, Doc                   string
	GoFiles, TestGoFiles, XTestGoFiles           []string
	Imports, TestImports, XTestImports           []string
	IgnoredGoFiles, CgoFiles, EmbedFiles, SFiles []string
}

// room is the path within the module; "." is the module's root.
func (p *listed) room() string { return room(p.ImportPath) }

func room(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

// packages asks the go command once for all tests.
var packages = sync.OnceValues(func() ([]*listed, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,Doc,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []*listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if len(p.GoFiles)+len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			all = append(all, p)
		}
	}
})

func list(t *testing.T) []*listed {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(all) < 5 {
		t.Fatalf("go list shows only %d packages", len(all))
	}
	return all
}

// floorOf returns the floor of a room, by the longest directory that is listed.
func floorOf(room string) (int, bool) {
	for dir := room; dir != "."; dir = path.Dir(dir) {
		if f, ok := rooms[dir]; ok {
			return f, true
		}
	}
	return 0, false
}

func below(room, dir string) bool { return room == dir || strings.HasPrefix(room, dir+"/") }

// knows reports whether a package may import another one of the same floor.
func knows(from, to string) bool {
	if below(from, to) || below(to, from) {
		return true
	}
	for dir, allowed := range neighbours {
		if below(from, dir) && slices.ContainsFunc(allowed, func(a string) bool { return below(to, a) }) {
			return true
		}
	}
	// Siblings below one directory, such as the parts of delivery or the engines of smtp, are one house within the
	// house.
	a, b := path.Dir(from), path.Dir(to)
	return a == b && a != "." && a != "internal"
}

func TestFloors(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		from := p.room()
		floor, ok := floorOf(from)
		if !ok {
			t.Errorf("%s has no floor: decide what it may know and put it into rooms", from)
			continue
		}
		for _, imp := range p.Imports {
			if ours(imp) {
				checkEdge(t, from, floor, room(imp))
			}
		}
		// Tests may use their neighbours and what stands lower, test kits included, but nothing from above.
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if f, _ := floorOf(room(imp)); ours(imp) && f > floor {
				t.Errorf("the tests of %s (floor %d) import %s (floor %d): %s", from, floor, room(imp), f, floorReasons[floor])
			}
		}
	}
}

func checkEdge(t *testing.T, from string, floor int, to string) {
	t.Helper()
	for edge, why := range edgeReasons {
		if below(from, edge[0]) && below(to, edge[1]) {
			t.Errorf("%s must not import %s: %s", from, to, why)
			return
		}
	}
	switch target, ok := floorOf(to); {
	case !ok:
		t.Errorf("%s imports %s, which has no floor", from, to)
	case target > floor:
		t.Errorf("%s (floor %d) must not import %s (floor %d): %s", from, floor, to, target, floorReasons[floor])
	case target == floor && !knows(from, to):
		t.Errorf("%s must not import its neighbour %s on floor %d: %s; if they belong together, say so in neighbours and in ARCHITECTURE.md",
			from, to, floor, floorReasons[floor])
	}
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		kit := slices.ContainsFunc(testKits, func(k string) bool { return below(p.room(), k) })
		for _, imp := range p.Imports {
			if ours(imp) || !strings.Contains(strings.Split(imp, "/")[0], ".") {
				continue
			}
			lib, ok := libraryOf(imp)
			switch {
			case !ok:
				t.Errorf("%s imports %s, which nobody owns: give it an owner in libraries and a line in ARCHITECTURE.md", p.room(), imp)
			case lib.owners == nil:
			case len(lib.owners) == 0 && kit && strings.HasPrefix(lib.why, "it is for tests"):
			case !slices.ContainsFunc(lib.owners, func(o string) bool { return below(p.room(), o) }):
				t.Errorf("%s must not import %s, which belongs to %s: %s", p.room(), imp, strings.Join(lib.owners, ", "), lib.why)
			}
		}
	}
}

func libraryOf(importPath string) (best library, ok bool) {
	for _, lib := range libraries {
		if below(importPath, lib.path) && len(lib.path) > len(best.path) {
			best, ok = lib, true
		}
	}
	return best, ok
}

func TestPackageNames(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, part := range append(strings.Split(p.room(), "/"), p.Name) {
			if slices.Contains(nobodys, part) {
				t.Errorf("%s: %q says nothing about what is in it; name it by the noun of the trade that it holds", p.room(), part)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		begin := "Package " + p.Name + " "
		if p.Name == "main" {
			begin = "Command " + path.Base(p.room()) + " "
		}
		if !strings.HasPrefix(p.Doc, begin) {
			t.Errorf("%s: the package comment must begin with %q and teach what the package is for", p.room(), begin)
		}
	}
}

// TestRulesBite holds the checks themselves: each forbidden thing is recognised.
func TestRulesBite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"smtp/smtpserver", "smtp", true}, {"smtp", "smtp/smtpserver", true}, {"smtp/smtptest", "smtp/smtpclient", true},
		{"message", "smtp", false}, {"event", "message", false}, {"message/dsn", "smtp", true}, {"message/dsn", "message", true},
		{"internal/spool", "internal/journal", true}, {"internal/journal", "internal/spool", false}, {"internal/dns", "internal/config", false},
		{"internal/delivery", "internal/queue", true}, {"internal/queue", "internal/delivery", false},
		{"internal/delivery", "internal/delivery/egress", true}, {"internal/outbox", "internal/queue", false},
		{"cmd/godwit", "internal/daemon", true}, {"internal/daemon", "cmd/godwit", false},
	} {
		if got := knows(tt.from, tt.to); got != tt.want {
			t.Errorf("knows(%s, %s) = %v", tt.from, tt.to, got)
		}
	}
	for name, want := range map[string]bool{
		"github.com/cockroachdb/pebble/v2/vfs/errorfs": true, "github.com/cockroachdb/pebblev2": false, "example.com/x": false,
	} {
		if _, ok := libraryOf(name); ok != want {
			t.Errorf("libraryOf(%s) = %v", name, ok)
		}
	}
	if lib, _ := libraryOf("github.com/cockroachdb/pebble/v2/vfs"); !slices.Contains(lib.owners, "internal/journal") {
		t.Errorf("vfs belongs to %v", lib.owners)
	}
}
