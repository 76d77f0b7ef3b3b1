package auth

import (
	_ "embed"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/godwit-mta/godwit/smtp/sasl"
)

// The rules of passwords. Length is what counts (NIST SP 800-63B, 5.1.1.2); beyond it a password must have so many
// signs that a guesser cannot foresee.
const (
	minPassword   = 12 // characters
	minUnforeseen = 8  // characters that are no part of a known word, a repetition or a sequence
)

// commonWords are words that passwords are made of, and whole passwords that leaked lists begin with, one a line, in the
// form of plain.
//
//go:embed common.txt
var commonWords string

// checkPassword brings a password into the form it is checked in, or says what is wrong with it. Nothing of it stands in
// the error.
func checkPassword(password, login string) (string, error) {
	p, err := sasl.Prepare(password)
	if err != nil || p != norm.NFKC.String(p) {
		return "", invalid("password",
			"the password has characters that not every program sends alike: leave out control characters, full-width letters and ligatures")
	}
	switch n := utf8.RuneCountInString(p); {
	case n < minPassword:
		return "", invalid("password", "the password has %d characters: use %d or more, or leave it out to have one made", n, minPassword)
	case len(p) > maxPassword:
		return "", invalid("password", "the password has more than %d octets", maxPassword)
	case strings.HasPrefix(p, KeyPrefix):
		return "", invalid("password", "a password does not begin with %s, which API keys do", KeyPrefix)
	}
	folded := plain(p)
	for name := range strings.FieldsFuncSeq(login, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if name := plain(name); len(name) >= 3 && strings.Contains(folded, name) {
			return "", invalid("password", "the password has a part of the user name in it")
		}
	}
	if min(unforeseen(folded), unforeseen(strings.ToLower(p))) < minUnforeseen {
		return "", invalid("password", "the password is made of common words, repetitions or sequences: "+
			"use one that was made at random, or leave it out to have one made")
	}
	return p, nil
}

// plain folds case, and the digits and signs that people put for letters.
func plain(s string) string {
	return strings.NewReplacer("@", "a", "4", "a", "3", "e", "1", "i", "!", "i", "0", "o", "$", "s", "5", "s", "7", "t").
		Replace(strings.ToLower(s))
}

// unforeseen counts the characters of a password that a guesser who knows the common words has to guess: each word, each
// repetition and each sequence counts as one. Sequences of digits are seen in a password that is not folded only.
func unforeseen(folded string) int {
	const word = '\x00' // stands for a word that was taken out
	rest := folded
	for w := range strings.Lines(commonWords) {
		if w = strings.TrimSuffix(w, "\n"); w != "" {
			rest = strings.ReplaceAll(rest, w, string(word))
		}
	}
	runes := []rune(rest)
	n := 0
	seen := make(map[string]bool)
	for i := range runes {
		switch {
		case i >= 1 && runes[i] == runes[i-1]:
			continue
		case i >= 2 && runes[i]-runes[i-1] == runes[i-1]-runes[i-2] && abs(runes[i]-runes[i-1]) == 1:
			continue
		case i >= 2 && seen[string(runes[i-2:i+1])]:
			continue
		}
		if i >= 2 {
			seen[string(runes[i-2:i+1])] = true
		}
		n++
	}
	return n
}

func abs(r rune) rune {
	if r < 0 {
		return -r
	}
	return r
}
