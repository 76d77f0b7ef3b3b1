package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds how deep values may nest, aliases included, so that an alias to itself ends.
const maxDepth = 16

// decoder turns a YAML tree into a Config and notes every problem on the way instead of stopping at the first. The
// library's own strict decoder stops there, and cannot say where a default came from.
type decoder struct {
	file     string
	cfg      *Config
	anchors  map[string]ast.Node
	origins  map[string]Origin // keys that stand in the file
	problems Problems
	depth    int

	doubtful map[string]bool // groups with unknown keys: what seems to be missing there may be misspelt
}

func (d *decoder) problem(at *token.Token, key, what, advice string) {
	p := Problem{File: d.file, Key: key, What: what, Advice: advice}
	if at != nil && at.Position != nil {
		p.Line, p.Column = at.Position.Line, at.Position.Column
	}
	d.problems = append(d.problems, p)
}

// syntax notes what the YAML parser could not read.
func (d *decoder) syntax(err error) {
	var e yaml.Error
	if errors.As(err, &e) {
		d.problem(e.GetToken(), "", "not valid YAML: "+e.GetMessage(),
			"check indentation, colons and quotes near this place")
		return
	}
	d.problem(nil, "", "not valid YAML: "+err.Error(), "check indentation, colons and quotes")
}

// collectAnchors implements ast.Visitor.
type collectAnchors map[string]ast.Node

func (c collectAnchors) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		c[a.Name.GetToken().Value] = a.Value
	}
	return c
}

// resolve follows anchors and aliases to the node that holds the value; nil means the value is absent (null).
func (d *decoder) resolve(n ast.Node, key string) (_ ast.Node, ok bool) {
	for range maxDepth {
		switch t := n.(type) {
		case nil, *ast.NullNode:
			return nil, true
		case *ast.AnchorNode:
			n = t.Value
		case *ast.AliasNode:
			name := t.Value.GetToken().Value
			target, known := d.anchors[name]
			if !known {
				d.problem(t.GetToken(), key, fmt.Sprintf("alias *%s has no anchor", name),
					fmt.Sprintf("mark a value with &%s or write it out", name))
				return nil, false
			}
			n = target
		case *ast.TagNode:
			d.problem(t.GetToken(), key, "YAML tags are not used here", "remove "+t.GetToken().Value)
			return nil, false
		default:
			return n, true
		}
	}
	d.problem(n.GetToken(), key, "alias refers to itself", "write the value out")
	return nil, false
}

// pairs returns the keys and values of a mapping.
func (d *decoder) pairs(n ast.Node, at *token.Token, key string) ([]*ast.MappingValueNode, bool) {
	switch t := n.(type) {
	case *ast.MappingNode:
		return t.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{t}, true
	}
	d.problem(place(n, at), key, "is "+kind(n)+" where keys and values are expected",
		`write "key: value" lines below it`)
	return nil, false
}

// kind names what stands in the file, in words for people.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a group of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}

// field is one key of a struct.
type field struct {
	name  string
	index int
	tag   reflect.StructTag
}

// fields lists the keys of a struct type in order of declaration.
func fields(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			fs = append(fs, field{name, i, t.Field(i).Tag})
		}
	}
	return fs
}

// structure decodes a mapping into v, a struct.
func (d *decoder) structure(n ast.Node, at *token.Token, v reflect.Value, key string) {
	values, ok := d.pairs(n, at, key)
	if !ok {
		return
	}
	known := fields(v.Type())
	seen := make(map[string]*token.Token, len(values))
	for _, pair := range values {
		keyToken := pair.Key.GetToken()
		name := keyToken.Value
		path := join(key, name)
		if _, merge := pair.Key.(*ast.MergeKeyNode); merge {
			d.problem(keyToken, key, "merge keys (<<) are not used here", "write the keys out")
			continue
		}
		if first := seen[name]; first != nil {
			d.problem(keyToken, path, fmt.Sprintf("is given twice, first in line %d", first.Position.Line),
				"keep one of them")
			continue
		}
		seen[name] = keyToken
		i := slices.IndexFunc(known, func(f field) bool { return f.name == name })
		if i < 0 {
			d.problem(keyToken, path, "unknown key", adviseKey(name, key, known))
			d.doubtful[key] = true
			continue
		}
		d.value(pair.Value, keyToken, v.Field(known[i].index), path, known[i].tag)
	}
}

// value decodes n into v, whatever it is. at is the token of the key, for problems with what has no place of its own.
func (d *decoder) value(n ast.Node, at *token.Token, v reflect.Value, key string, tag reflect.StructTag) {
	if d.depth++; d.depth > maxDepth {
		d.problem(at, key, "nests too deep", "write the value out")
		return
	}
	defer func() { d.depth-- }()
	n, ok := d.resolve(n, key)
	if !ok || n == nil {
		return
	}
	d.origins[key] = originOf(d.file, n, at)
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[netip.Prefix]() {
			d.scalar(n, at, v, key, tag)
			return
		}
		d.structure(n, at, v, key)
	case reflect.Slice:
		d.list(n, at, v, key, tag)
	case reflect.Map:
		d.durations(n, at, v, key, tag)
	default:
		d.scalar(n, at, v, key, tag)
	}
}

// list decodes a sequence; elements that are wrong are noted and left out.
func (d *decoder) list(n ast.Node, at *token.Token, v reflect.Value, key string, tag reflect.StructTag) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.problem(place(n, at), key, "is "+kind(n)+" where a list is expected",
			`write [first, second] or one "- item" on each line`)
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, len(seq.Values))
	for i, item := range seq.Values {
		elem := reflect.New(v.Type().Elem()).Elem()
		switch e := elem.Addr().Interface().(type) {
		case *Listener:
			*e = DefaultListener()
			e.Limits = d.cfg.Limits
		case *Route:
			*e = DefaultRoute()
		case *Tenant:
			e.Quota, e.TLS = d.cfg.Quotas.Tenant, DefaultTLS
		case *OAuth:
			*e = DefaultOAuth()
		case *DKIMKey:
			*e = DefaultDKIMKey()
		}
		d.value(item, place(item, at), elem, fmt.Sprintf("%s[%d]", key, i), tag)
		list = reflect.Append(list, elem)
	}
	v.Set(list)
}

// durations decodes a mapping of names to durations over the defaults there are.
func (d *decoder) durations(n ast.Node, at *token.Token, v reflect.Value, key string, tag reflect.StructTag) {
	values, ok := d.pairs(n, at, key)
	if !ok {
		return
	}
	seen := make(map[string]bool, len(values))
	for _, pair := range values {
		keyToken := pair.Key.GetToken()
		path := join(key, keyToken.Value)
		if seen[keyToken.Value] {
			d.problem(keyToken, path, "is given twice", "keep one of them")
			continue
		}
		seen[keyToken.Value] = true
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(pair.Value, keyToken, elem, path, tag)
		v.SetMapIndex(reflect.ValueOf(keyToken.Value), elem)
	}
}

// scalar decodes a single value and checks it against the range or the words of its tag.
func (d *decoder) scalar(n ast.Node, at *token.Token, v reflect.Value, key string, tag reflect.StructTag) {
	at = place(n, at)
	text, isText, ok := scalarText(n)
	if !ok {
		d.problem(at, key, "is "+kind(n)+" where a single value is expected", "write one value")
		return
	}
	switch dst := v.Addr().Interface().(type) {
	case *string:
		if !isText {
			d.problem(at, key, "is "+kind(n)+" where text is expected", "write "+strconv.Quote(text))
			return
		}
		*dst = text
		d.checkWord(at, key, text, tag)
	case *bool:
		if _, ok := n.(*ast.BoolNode); !ok {
			d.problem(at, key, strconv.Quote(text)+" is neither true nor false", "write true or false")
			return
		}
		*dst = text == "true"
	case *int:
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil || isText {
			d.problem(at, key, strconv.Quote(text)+" is not a whole number",
				"write it in decimal digits, without quotes")
			return
		}
		*dst = int(i)
		d.checkRange(at, key, i, tag, parseInt, text)
	case *Size:
		size, err := ParseSize(text)
		if err != nil {
			d.split(at, key, err)
			return
		}
		*dst = size
		d.checkRange(at, key, int64(size), tag, parseSize, text)
	case *time.Duration:
		pause, err := ParseDuration(text)
		if err != nil {
			d.split(at, key, err)
			return
		}
		*dst = pause
		d.checkRange(at, key, int64(pause), tag, parseDuration, text)
	case *netip.Prefix:
		prefix, err := parseNetwork(text)
		if err != nil {
			d.split(at, key, err)
			return
		}
		*dst = prefix
	}
}

// split notes an error whose text is "what; advice".
func (d *decoder) split(at *token.Token, key string, err error) {
	what, advice, _ := strings.Cut(err.Error(), "; ")
	d.problem(at, key, what, advice)
}

func (d *decoder) checkWord(at *token.Token, key, text string, tag reflect.StructTag) {
	words := tag.Get("enum")
	if words == "" || slices.Contains(strings.Split(words, ","), text) {
		return
	}
	d.problem(at, key, strconv.Quote(text)+" is not one of the words allowed",
		"write "+orList(strings.Split(words, ",")))
}

func (d *decoder) checkRange(
	at *token.Token, key string, n int64, tag reflect.StructTag, parse func(string) (int64, error), text string,
) {
	low, high, ok := strings.Cut(tag.Get("range"), "..")
	if !ok {
		return
	}
	from, _ := parse(low) // a test reads every tag
	to, _ := parse(high)
	if n < from || n > to {
		d.problem(at, key, text+" is out of range", fmt.Sprintf("write a value from %s to %s", low, high))
	}
}

func parseInt(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

func parseSize(s string) (int64, error) {
	n, err := ParseSize(s)
	return int64(n), err
}

func parseDuration(s string) (int64, error) {
	n, err := ParseDuration(s)
	return int64(n), err
}

// parseNetwork reads a network in CIDR form, or a single address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a network; "+
			"write an address with a prefix length, such as 10.0.0.0/8 or 2001:db8::/32", s)
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%q has bits set beyond its prefix length; "+
			"write %s for the network or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// scalarText returns the text of a single value, and whether the file has it as text.
func scalarText(n ast.Node) (text string, isText, ok bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, true, true
	case *ast.LiteralNode:
		return t.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, false, true
	}
	return "", false, false
}

// place returns the token of the value itself if it has one that a reader would look at, else that of its key.
func place(n ast.Node, key *token.Token) *token.Token {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		if tk := firstKey(n); tk != nil {
			return tk
		}
		return key
	case nil:
		return key
	}
	if tk := n.GetToken(); tk != nil {
		return tk
	}
	return key
}

func firstKey(n ast.Node) *token.Token {
	switch t := n.(type) {
	case *ast.MappingNode:
		if len(t.Values) > 0 {
			return t.Values[0].Key.GetToken()
		}
		return t.Start
	case *ast.MappingValueNode:
		return t.Key.GetToken()
	}
	return nil
}

func originOf(file string, n ast.Node, key *token.Token) Origin {
	at := place(n, key)
	if at == nil || at.Position == nil {
		return Origin{File: file}
	}
	return Origin{File: file, Line: at.Position.Line, Column: at.Position.Column}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
