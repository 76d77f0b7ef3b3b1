package limits

import "strings"

// Subject is what a limit counts.
type Subject uint8

// The subjects.
const (
	Messages   Subject = iota // accepted
	Recipients                // of accepted messages
	Bytes                     // of accepted messages
	Unique                    // different recipients
	subjects
)

var subjectWords = [subjects]string{"messages", "recipients", "bytes", "unique_recipients"}

// String returns the word: messages, recipients, bytes, unique_recipients.
func (s Subject) String() string { return subjectWords[s] }

// Span is the time that a limit is for.
type Span uint8

// The spans.
const (
	Minute Span = iota
	Hour
	Day
	spans
)

var spanWords = [spans]string{"minute", "hour", "day"}

// String returns the word: minute, hour, day.
func (s Span) String() string { return spanWords[s] }

// Quota is how much one sender may hand in. 0 is not set, which means what the wider configuration says, and no limit if
// nothing does; a negative number is no limit whatever the configuration says.
type Quota struct {
	Max       [subjects][spans]int64
	RefuseDay bool // a used-up day is a permanent refusal
}

// Set sets one number by its words and reports whether there is such a limit.
func (q *Quota) Set(subject, per string, most int64) bool {
	for s, word := range subjectWords {
		for p, span := range spanWords {
			if word == subject && span == per {
				q.Max[s][p] = most
				return true
			}
		}
	}
	return false
}

// Name returns how the file calls a limit: "messages_per_hour".
func Name(s Subject, p Span) string { return s.String() + "_per_" + p.String() }

// over returns q with what it leaves open taken from wider.
func (q Quota) over(wider *Quota) Quota {
	for s := range q.Max {
		for p, n := range q.Max[s] {
			if n == 0 {
				q.Max[s][p] = wider.Max[s][p]
			}
		}
	}
	q.RefuseDay = q.RefuseDay || wider.RefuseDay
	return q
}

// Kind is whom a limit is for.
type Kind uint8

// The kinds of holders, in the order they are asked.
const (
	Tenant Kind = iota
	Credential
	Client // an IPv4 address or an IPv6 /64
	kinds
)

var kindWords = [kinds]string{"tenant", "credential", "client"}

// String returns the word: tenant, credential, client.
func (k Kind) String() string { return kindWords[k] }

// ParseKind reads the word.
func ParseKind(s string) (Kind, bool) {
	for k, word := range kindWords {
		if word == s {
			return Kind(k), true
		}
	}
	return 0, false
}

// LimitSet is one holder and what was set for it alone.
type LimitSet struct {
	Kind   Kind
	Name   string
	Quota  Quota
	Source string // where the numbers of Quota come from, for people: "credential c1"; empty if there are none
}

// maxName bounds the name of a holder, which becomes a key of the store.
const maxName = 256

func (s *LimitSet) valid() bool {
	return s.Name != "" && len(s.Name) <= maxName && !strings.Contains(s.Name, "\x00")
}
