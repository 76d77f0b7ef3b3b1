package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// hidden is what a secret looks like.
const hidden = "[secret]"

// Secret is text that nothing writes: JSON, fmt and slog all see "[secret]". Only [Secret.Reveal] gives it away. Its zero value
// is an empty secret.
type Secret struct{ value string }

// NewSecret hides s.
func NewSecret(s string) Secret { return Secret{s} }

// Reveal returns the text, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// String returns "[secret]".
func (Secret) String() string { return hidden }

// GoString returns "[secret]", for %#v.
func (Secret) GoString() string { return hidden }

// Format writes "[secret]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText returns "[secret]", as JSON and all else that writes text does then.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// secretWords end the names of fields whose values are never kept, whatever the type that wrote them.
var secretWords = []string{
	"password", "passphrase", "passwd", "secret", "token", "api_key", "apikey", "private_key", "privatekey", "key_pem",
	"verifier", "stored_key", "storedkey", "server_key", "serverkey", "salt", "hash", "authorization", "cookie", "wrapped",
}

func secretName(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	for _, w := range secretWords {
		if strings.HasSuffix(name, w) {
			return true
		}
	}
	return false
}

// encode writes v as compact JSON without the values of secret fields. nil gives nil.
func encode(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	// With the escapes of HTML, so that the bytes that are hashed stay as they are whichever way they are written again.
	enc := json.NewEncoder(&b)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	var tree any
	dec := json.NewDecoder(&b)
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, nil
	}
	tree = redact(tree)
	b.Reset()
	if err := enc.Encode(tree); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// redact replaces the values of secret fields in a decoded tree.
func redact(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for name, value := range x {
			if secretName(name) && value != nil && value != "" && value != false {
				x[name] = hidden
				continue
			}
			x[name] = redact(value)
		}
	case []any:
		for i := range x {
			x[i] = redact(x[i])
		}
	}
	return v
}
