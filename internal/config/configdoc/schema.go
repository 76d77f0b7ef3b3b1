package configdoc

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/godwit-mta/godwit/internal/config"
)

const (
	durationPattern = `^(0|([0-9]+w)?([0-9]+d)?([0-9]+(\.[0-9]+)?(h|ms|m|s|us|ns))*)$`
	sizePattern     = `^[0-9][0-9_]* ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?$`
)

// required lists the keys without which an element of a list means nothing.
var required = map[reflect.Type][]string{
	reflect.TypeFor[config.Listener](): {"name", "address"},
	reflect.TypeFor[config.Route]():    {"domains", "hosts"},

	reflect.TypeFor[config.Certificate](): {"name", "certificate", "key"},
	reflect.TypeFor[config.Tenant]():      {"id"},
	reflect.TypeFor[config.OAuth]():       {"name", "issuer"},
	reflect.TypeFor[config.DKIMKey]():     {"domain", "selector"},
}

// Schema returns the JSON Schema of the configuration file. configGo is the path of the file that declares
// [config.Config].
func Schema(configGo string) ([]byte, error) {
	texts, err := comments(configGo)
	if err != nil {
		return nil, err
	}
	reflector := &jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		ExpandedStruct:             true,
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Mapper:                     plain,
		LookupComment: func(t reflect.Type, field string) string {
			if field == "" {
				return ""
			}
			return texts[t.Name()+"."+field]
		},
	}
	schema := reflector.Reflect(config.Default())
	schema.Title = "Godwit configuration"
	if err := refine(schema, reflect.ValueOf(*config.Default())); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(schema, "", "  ")
	return append(out, '\n'), err
}

// plain maps the types that are single values in the file.
func plain(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: durationPattern}
	case reflect.TypeFor[config.Size]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer"}, {Type: "string", Pattern: sizePattern}}}
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// refine adds what tags and defaults say.
func refine(s *jsonschema.Schema, v reflect.Value) error {
	s.Required = required[v.Type()]
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		prop, ok := s.Properties.Get(name)
		if !ok {
			return fmt.Errorf("key %s has no property", name)
		}
		value := prop
		switch f.Type.Kind() {
		case reflect.Slice:
			value = prop.Items
		case reflect.Map:
			value = prop.AdditionalProperties
		}
		if words := f.Tag.Get("enum"); words != "" {
			for w := range strings.SplitSeq(words, ",") {
				value.Enum = append(value.Enum, w)
			}
		}
		if low, high, ok := strings.Cut(f.Tag.Get("range"), ".."); ok {
			if f.Type.Kind() == reflect.Int {
				value.Minimum, value.Maximum = json.Number(low), json.Number(high)
			}
			prop.Description += fmt.Sprintf(" From %s to %s.", low, high)
		}
		if f.Tag.Get("restart") != "" {
			prop.Description += " A change takes effect at the next start."
		}
		if group, ok := elementOf(f.Type); ok {
			if err := refine(value, groupValue(v.Field(i), group)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		prop.Default = defaultOf(v.Field(i))
	}
	return nil
}

// elementOf returns the struct behind a group or a list of groups.
func elementOf(t reflect.Type) (reflect.Type, bool) {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && t != reflect.TypeFor[netip.Prefix]()
}

// groupValue returns the defaults of a group: its own, or those of an element of a list.
func groupValue(v reflect.Value, group reflect.Type) reflect.Value {
	switch group {
	case reflect.TypeFor[config.Listener]():
		return reflect.ValueOf(config.DefaultListener())
	case reflect.TypeFor[config.Route]():
		return reflect.ValueOf(config.DefaultRoute())
	case reflect.TypeFor[config.OAuth]():
		return reflect.ValueOf(config.DefaultOAuth())
	case reflect.TypeFor[config.DKIMKey]():
		return reflect.ValueOf(config.DefaultDKIMKey())
	case reflect.TypeFor[config.Tenant]():
		return reflect.ValueOf(config.Tenant{Quota: config.Default().Quotas.Tenant})
	}
	if v.Kind() == reflect.Slice {
		return reflect.Zero(group)
	}
	return v
}

// defaultOf returns a default as JSON would have it; nil for zero values, which say nothing.
func defaultOf(v reflect.Value) any {
	if v.IsZero() {
		return nil
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return config.FormatDuration(x)
	case config.Size:
		return x.String()
	case []time.Duration:
		list := make([]string, len(x))
		for i := range x {
			list[i] = config.FormatDuration(x[i])
		}
		return list
	case map[string]time.Duration:
		m := make(map[string]string)
		for k, d := range x {
			m[k] = config.FormatDuration(d)
		}
		return m
	}
	return v.Interface()
}
