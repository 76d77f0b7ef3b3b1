package config

import "strings"

// adviseKey says what to write instead of an unknown key: the nearest key of the same group if one is near, else the
// keys there are.
func adviseKey(name, group string, known []field) string {
	names := make([]string, len(known))
	best, distance := "", len(name)/3+2
	for i, f := range known {
		names[i] = f.name
		if n := editDistance(strings.ToLower(name), f.name); n < distance {
			best, distance = f.name, n
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if group == "" {
		group = "the top level"
	}
	return group + " knows " + strings.Join(names, ", ")
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	next := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}

// orList writes "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
