package config

import _ "embed"

//go:embed schema.json
var schema string

// Schema returns the JSON Schema (draft 2020-12) of the configuration file, for editors and for checks before
// deployment. It knows each value by itself; only [Parse] knows how they belong together.
func Schema() string { return schema }
