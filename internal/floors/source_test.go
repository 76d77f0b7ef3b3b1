package floors

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// eachFile parses every non-test Go file of the module, package by package.
func eachPackage(t *testing.T, visit func(p *listed, fset *token.FileSet, files []*ast.File)) {
	t.Helper()
	for _, p := range list(t) {
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			files = append(files, f)
		}
		visit(p, fset, files)
	}
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	eachPackage(t, func(_ *listed, fset *token.FileSet, files []*ast.File) {
		for _, f := range files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: init runs before main can decide anything, in every command; do it in New", fset.Position(fn.Pos()))
				}
			}
		}
	})
}

// TestNoGlobalRegistry wants metrics to be made from a Registerer that is passed in, and the registry itself in daemon
// alone.
func TestNoGlobalRegistry(t *testing.T) {
	t.Parallel()
	globals := []string{"DefaultRegisterer", "DefaultGatherer", "MustRegister", "Register", "Unregister"}
	eachPackage(t, func(p *listed, fset *token.FileSet, files []*ast.File) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "prometheus" {
					return true
				}
				if slices.Contains(globals, sel.Sel.Name) {
					t.Errorf("%s: prometheus.%s is a global; take a Registerer in Options", fset.Position(n.Pos()), sel.Sel.Name)
				}
				if strings.HasPrefix(sel.Sel.Name, "New") && strings.HasSuffix(sel.Sel.Name, "Registry") && !below(p.room(), "internal/daemon") {
					t.Errorf("%s: the registry is made in daemon, which alone knows all packages", fset.Position(n.Pos()))
				}
				return true
			})
		}
	})
}

// TestNoVariablesThatChange finds package variables that are, or can only be, state: they tie tests and servers in one
// process together.
func TestNoVariablesThatChange(t *testing.T) {
	t.Parallel()
	eachPackage(t, func(_ *listed, fset *token.FileSet, files []*ast.File) {
		for _, c := range changingVariables(files) {
			t.Errorf("%s: package variable %s %s", fset.Position(c.pos), c.name, c.why)
		}
	})
}

type changing struct {
	name, why string
	pos       token.Pos
}

// changingVariables is an approximation by syntax: it knows the forms that state takes in Go code, not types.
func changingVariables(files []*ast.File) []changing {
	var found []changing
	declared := make(map[string]bool)
	for _, f := range files {
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if name.Name == "_" {
						continue
					}
					declared[name.Name] = true
					var value ast.Expr
					if i < len(spec.Values) {
						value = spec.Values[i]
					}
					if why := stateful(gen, spec, value); why != "" {
						found = append(found, changing{name.Name, why, name.Pos()})
					}
				}
			}
		}
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				found = append(found, assigned(fn, declared)...)
			}
		}
	}
	return found
}

// stateful says why a declaration is state, empty if it may be a constant that Go cannot express.
func stateful(gen *ast.GenDecl, spec *ast.ValueSpec, value ast.Expr) string {
	if spec.Type != nil && isPool(spec.Type) {
		return ""
	}
	if spec.Type != nil && isState(spec.Type) {
		return "is a lock, an atomic or a channel: make it a field of what it guards"
	}
	switch v := value.(type) {
	case nil:
		if fromBuild(gen, spec) {
			return ""
		}
		return "has no value, so it is there to be changed: make it a field"
	case *ast.CompositeLit:
		if isState(v.Type) && !isPool(v.Type) {
			return "is a lock, an atomic or a channel: make it a field of what it guards"
		}
	case *ast.CallExpr:
		switch fn := v.Fun.(type) {
		case *ast.Ident:
			if fn.Name == "make" || fn.Name == "new" {
				return "is made empty, so it is there to be changed: make it a field"
			}
		case *ast.SelectorExpr:
			// A description is a constant that Go cannot express.
			if x, ok := fn.X.(*ast.Ident); ok && fn.Sel.Name != "NewDesc" && (x.Name == "prometheus" || x.Name == "rand" || x.Name == "flag" || x.Name == "expvar") {
				return "is state of " + x.Name + ": make it a field"
			}
		}
	}
	return ""
}

// fromBuild reports whether compiler or linker give the value: //go:embed, or a comment that names the linker's flag
// -X.
func fromBuild(gen *ast.GenDecl, spec *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{gen.Doc, spec.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
			return strings.HasPrefix(c.Text, "//go:embed ") || strings.Contains(c.Text, " -X ")
		}) {
			return true
		}
	}
	return false
}

func isPool(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Pool"
}

func isState(e ast.Expr) bool {
	switch t := e.(type) {
	case *ast.ChanType:
		return true
	case *ast.IndexExpr: // atomic.Pointer[T]
		return isState(t.X)
	case *ast.SelectorExpr:
		x, ok := t.X.(*ast.Ident)
		return ok && (x.Name == "sync" || x.Name == "atomic")
	}
	return false
}

// assigned finds assignments to package variables in a function. A local of the same name hides the variable for the
// whole function, which is enough to be right about real code.
func assigned(fn *ast.FuncDecl, declared map[string]bool) []changing {
	hidden := make(map[string]bool)
	for _, list := range []*ast.FieldList{fn.Recv, fn.Type.Params, fn.Type.Results} {
		if list != nil {
			for _, f := range list.List {
				for _, n := range f.Names {
					hidden[n.Name] = true
				}
			}
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				for _, l := range s.Lhs {
					if id, ok := l.(*ast.Ident); ok {
						hidden[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{s.Key, s.Value} {
				if id, ok := e.(*ast.Ident); ok && s.Tok == token.DEFINE {
					hidden[id.Name] = true
				}
			}
		case *ast.ValueSpec:
			for _, id := range s.Names {
				hidden[id.Name] = true
			}
		case *ast.FuncType:
			for _, f := range s.Params.List {
				for _, id := range f.Names {
					hidden[id.Name] = true
				}
			}
		}
		return true
	})
	var found []changing
	note := func(e ast.Expr) {
		if id := root(e); id != nil && declared[id.Name] && !hidden[id.Name] {
			found = append(found, changing{id.Name, "is assigned to: pass the value in, or make it a field", id.Pos()})
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				for _, l := range s.Lhs {
					note(l)
				}
			}
		case *ast.IncDecStmt:
			note(s.X)
		}
		return true
	})
	return found
}

// root returns the variable that an assignment changes: x of x.f[i].g.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default: // *p is what p points to, a call gives something new
			return nil
		}
	}
}

func TestChangingVariablesAreFound(t *testing.T) {
	t.Parallel()
	const code = `package p
var (
	ErrX    = errors.New("x")
	table   = map[string]int{"a": 1}
	pattern = regexp.MustCompile("a")
	pool    = sync.Pool{New: nil}
	_       I = (*T)(nil)
	counter int
	mu      sync.Mutex
	done    = make(chan bool)
	cache   = map[string]int{}
	hits    atomic.Int64
	ptr     atomic.Pointer[T]
	metric  = prometheus.NewCounter(opts)
	verbose = false
)
//go:embed file
var text string
func f(table int) { table = 1; pattern := 2; pattern = 3; _ = pattern }
func g() { cache["x"] = 1; verbose = true; ErrX.f++ }
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", code, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changingVariables([]*ast.File{f}) {
		got = append(got, c.name)
	}
	want := []string{"counter", "mu", "done", "hits", "ptr", "metric", "cache", "verbose", "ErrX"}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// Sizes that a reader can hold: a file is one subject, a line fits beside another.
const (
	maxLines = 800
	maxWidth = 160
)

func TestFilesAreReadable(t *testing.T) {
	t.Parallel()
	todo := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, p := range list(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			file := filepath.Join(p.Dir, name)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			n := 0
			for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); n++ {
				line := lines.Text()
				if strings.HasSuffix(name, "_test.go") {
					continue
				}
				if width := len([]rune(strings.ReplaceAll(line, "\t", "    "))); width > maxWidth {
					t.Errorf("%s:%d: %d columns wide, %d is the limit", file, n+1, width, maxWidth)
				}
				if todo.MatchString(line) {
					t.Errorf("%s:%d: what is not done is an issue, not a comment", file, n+1)
				}
			}
			if n > maxLines {
				t.Errorf("%s has %d lines, %d is the limit: cut it at a noun", file, n, maxLines)
			}
		}
	}
}
