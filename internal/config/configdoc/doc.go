// Package configdoc writes what people and editors read about the configuration file: the JSON Schema (draft 2020-12)
// that becomes part of the binary, and docs/reference/config.md. Both come from the fields of [config.Config]: their
// comments, tags and defaults.
//
// It is used by `make generate` alone, so the schema library and the Go parser are not linked into the server.
package configdoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// comments returns the comment of each struct and struct field declared next to a Go file, itself included, by "Type" and
// "Type.Field", as one paragraph.
func comments(goFile string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(goFile), "*.go"))
	if err != nil {
		return nil, fmt.Errorf("finding the declarations of the configuration: %w", err)
	}
	found := make(map[string]string)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("reading the comments of the configuration: %w", err)
		}
		collect(found, file)
	}
	return found, nil
}

func collect(found map[string]string, file *ast.File) {
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			found[t.Name.Name] = paragraph(gen.Doc.Text())
			s, ok := t.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					found[t.Name.Name+"."+name.Name] = paragraph(f.Doc.Text())
				}
			}
		}
	}
}

func paragraph(s string) string { return strings.Join(strings.Fields(s), " ") }
