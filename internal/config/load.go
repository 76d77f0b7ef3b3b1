package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxFileSize bounds a configuration file in octets.
const MaxFileSize = 4 << 20

// Load reads, checks and completes the file at path. The error is [Problems] if the file could be read but must not be
// used.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads, checks and completes a configuration. name stands for the file in messages. The error is [Problems], all
// there are.
func Parse(name string, data []byte) (*Config, error) {
	cfg := Default()
	d := &decoder{
		file: name, cfg: cfg,
		anchors: make(map[string]ast.Node), origins: make(map[string]Origin), doubtful: make(map[string]bool),
	}
	if len(data) > MaxFileSize {
		d.problem(nil, "", fmt.Sprintf("is larger than %s", Size(MaxFileSize)), "check that this is the file you mean")
		return nil, d.problems
	}
	if d.decode(data) {
		d.complete()
		d.validate()
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	cfg.file, cfg.origins = name, d.origins
	cfg.advice.sort()
	return cfg, nil
}

// decode reads the tree into the configuration and reports whether there was one.
func (d *decoder) decode(data []byte) bool {
	// A byte order mark is what some editors leave; it is no part of the text.
	tree, err := parser.ParseBytes(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return false
	}
	var body ast.Node
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType {
			continue
		}
		if body != nil {
			d.problem(place(doc.Body, nil), "", "a second YAML document begins here", "keep one document in the file")
			return false
		}
		body = doc.Body
	}
	if body == nil {
		return true
	}
	ast.Walk(collectAnchors(d.anchors), body)
	if body.Type() != ast.MappingType && body.Type() != ast.MappingValueType {
		d.problem(place(body, nil), "", "is "+kind(body)+" where keys and values are expected", `write "key: value" lines`)
		return false
	}
	d.patternsFirst(body)
	d.structure(body, body.GetToken(), reflect.ValueOf(d.cfg).Elem(), "")
	return true
}

// patternsFirst reads the top-level limits and quotas before all else, since listeners and tenants begin as copies of them.
// What is wrong with them is noted when they are read again in their turn.
func (d *decoder) patternsFirst(body ast.Node) {
	early := *d
	early.problems = nil
	pairs, ok := early.pairs(body, nil, "")
	if !ok {
		return
	}
	for _, pair := range pairs {
		switch name := pair.Key.GetToken().Value; name {
		case "limits":
			early.value(pair.Value, pair.Key.GetToken(), reflect.ValueOf(&d.cfg.Limits).Elem(), name, "")
		case "quotas":
			early.value(pair.Value, pair.Key.GetToken(), reflect.ValueOf(&d.cfg.Quotas).Elem(), name, "")
		}
	}
}

// complete fills what depends on the machine or on other keys.
func (d *decoder) complete() {
	c := d.cfg
	if c.Hostname == "" {
		if name, err := os.Hostname(); err == nil {
			c.Hostname = name
		}
		d.origins["hostname"] = Origin{Word: "machine"}
	}
	if c.Events.Dir == "" {
		c.Events.Dir = filepath.Join(c.DataDir, "events")
		d.origins["events.dir"] = Origin{Word: "data_dir"}
	}
	if c.Delivery.Hello == "" {
		c.Delivery.Hello = c.Hostname
		d.origins["delivery.hello"] = Origin{Word: "hostname"}
	}
	for i := range c.Listeners {
		d.inherit(fmt.Sprintf("listeners[%d].limits", i), "limits", reflect.TypeFor[Limits]())
	}
	for i := range c.Tenants {
		d.inherit(fmt.Sprintf("tenants[%d].quota", i), "quotas.tenant", reflect.TypeFor[Quota]())
	}
}

// inherit names the group that the values of another one come from where the file does not give them.
func (d *decoder) inherit(group, from string, t reflect.Type) {
	for _, f := range fields(t) {
		if _, given := d.origins[join(group, f.name)]; !given {
			d.origins[join(group, f.name)] = Origin{Word: join(from, f.name)}
		}
	}
}
