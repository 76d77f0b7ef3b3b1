// Package config is the configuration file: its keys, their defaults, what is wrong with a file, and what a change
// means.
//
// The file is YAML and strict: an unknown key, a value of the wrong kind or out of range, a unit that is missing are
// problems, and all problems of a file are found in one go, each with line, column, what is wrong and what to write
// instead.
//
//	cfg, err := config.Load("/etc/godwit/godwit.yaml")
//	var problems config.Problems
//	if errors.As(err, &problems) {
//		for _, p := range problems {
//			fmt.Println(p) // godwit.yaml:3:5: listeners[0].adress: unknown key; did you mean address?
//		}
//	}
//
// [Default] holds every default; [Config.Origin] says where an effective value comes from; [Diff] compares two
// configurations and tells what a reload can take over. The package knows no other room: the composition root turns
// values into the options of each.
//
// The fields' comments are the reference. They are turned into a JSON Schema and docs/reference/config.md by `make
// generate`; the schema is part of the binary ([Schema]).
package config
