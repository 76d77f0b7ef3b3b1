package configdoc

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwit-mta/godwit/internal/config"
)

const configGo = "../config.go"

// TestGeneratedFilesAreCurrent fails when config.go was edited without `make generate`.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	schema, err := Schema(configGo)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Schema(), string(schema)); diff != "" {
		t.Errorf("schema.json is stale, run make generate (-file +code):\n%s", diff)
	}
	example, err := os.ReadFile("../../../docs/godwit.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := Reference(configGo, example)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../../docs/reference/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), string(reference)); diff != "" {
		t.Errorf("config.md is stale, run make generate (-file +code):\n%s", diff)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	texts, err := comments(configGo)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Tag.Get("yaml") == "" {
				continue
			}
			name := typ.Name() + "." + f.Name
			if text := texts[name]; len(text) < 10 || !strings.HasSuffix(text, ".") || strings.Contains(text, "|") {
				t.Errorf("%s needs a sentence that fits a table: %q", name, text)
			}
			if group, ok := elementOf(f.Type); ok {
				walk(group)
			}
		}
	}
	walk(reflect.TypeFor[config.Config]())
}
