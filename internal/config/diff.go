package config

import "slices"

// Change is one effective value that differs between two configurations.
type Change struct {
	Key     string `json:"key"` // listeners and routes by name: "listeners[relay].limits.sessions"
	Old     string `json:"old"` // empty: the key is new
	New     string `json:"new"` // empty: the key is gone
	Restart bool   `json:"restart"`
}

// Diff returns what differs, in the order of the reference, keys that are gone last. A listener that appears or goes
// needs a restart, since its socket is opened when the server starts.
func Diff(before, after *Config) []Change {
	rest := make(map[string]Value)
	old := before.Values()
	for _, v := range old {
		rest[v.name] = v
	}
	var changes []Change
	for _, v := range after.Values() {
		was, known := rest[v.name]
		delete(rest, v.name)
		if !known || was.Value != v.Value {
			changes = append(changes, Change{Key: v.name, Old: was.Value, New: v.Value, Restart: v.Restart})
		}
	}
	for _, v := range old {
		if _, gone := rest[v.name]; gone {
			changes = append(changes, Change{Key: v.name, Old: v.Value, Restart: v.Restart})
		}
	}
	return changes
}

// NeedsRestart returns the keys among the changes that a reload cannot take over.
func NeedsRestart(changes []Change) []string {
	var keys []string
	for _, c := range changes {
		if c.Restart {
			keys = append(keys, c.Key)
		}
	}
	return slices.Compact(keys)
}
