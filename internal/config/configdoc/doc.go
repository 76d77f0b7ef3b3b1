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
	"strings"
)

// comments returns the comment of each struct field in a Go file, by "Type.Field", as one paragraph.
func comments(goFile string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), goFile, nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the comments of the configuration: %w", err)
	}
	found := make(map[string]string)
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
	return found, nil
}

func paragraph(s string) string { return strings.Join(strings.Fields(s), " ") }
