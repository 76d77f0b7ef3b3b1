package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is one effective value of a configuration.
type Value struct {
	Key     string `json:"key"`    // as in messages: "listeners[0].limits.sessions"
	Value   string `json:"value"`  // as it would be written in the file, lists in brackets
	Origin  string `json:"origin"` // Origin.String
	Restart bool   `json:"-"`      // a change needs a restart

	name string // the key with list indices replaced by names, so that an inserted listener does not shift the others
}

// Values returns every effective value, in the order of the reference. Lists of plain values are one value.
func (c *Config) Values() []Value {
	f := flattener{cfg: c}
	f.walk(reflect.ValueOf(c).Elem(), "", "", false)
	return f.values
}

type flattener struct {
	cfg    *Config
	values []Value
}

func (f *flattener) walk(v reflect.Value, key, name string, restart bool) {
	switch {
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[netip.Prefix]():
		for _, fd := range fields(v.Type()) {
			f.walk(v.Field(fd.index), join(key, fd.name), join(name, fd.name), restart || fd.tag.Get("restart") != "")
		}
	case v.Kind() == reflect.Slice && isGroup(v.Type().Elem()):
		for i := range v.Len() {
			f.walk(v.Index(i), fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("%s[%s]", name, elementName(v.Index(i), i)), restart)
		}
		if v.Len() == 0 {
			f.add(key, name, "[]", restart)
		}
	case v.Kind() == reflect.Map:
		m := v.Interface().(map[string]time.Duration)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			f.add(join(key, k), join(name, k), FormatDuration(m[k]), restart)
		}
	default:
		f.add(key, name, text(v), restart)
	}
}

func (f *flattener) add(key, name, value string, restart bool) {
	f.values = append(f.values, Value{Key: key, Value: value, Origin: f.cfg.Origin(key).String(), Restart: restart, name: name})
}

func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[netip.Prefix]()
}

// elementName tells one element of a list from the others when positions change.
func elementName(v reflect.Value, i int) string {
	switch e := v.Interface().(type) {
	case Listener:
		return e.Name
	case Route:
		return strings.Join(e.Domains, " ")
	case Tenant:
		return e.ID
	case Certificate:
		return e.Name
	case OAuth:
		return e.Name
	case DKIMKey:
		return e.Domain + " " + e.Selector
	}
	return strconv.Itoa(i)
}

// text writes one value or a list of plain values as the file would have it.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case Size:
		return x.String()
	case netip.Prefix:
		return quote(x.String())
	case string:
		return quote(x)
	}
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = text(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// quote quotes text that YAML could take for something else.
func quote(s string) string {
	plain := s != ""
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '/' && i == 0
		plain = plain && (letter || i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == '/'))
	}
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
