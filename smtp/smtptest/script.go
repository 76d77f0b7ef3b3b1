package smtptest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Script is how a sink behaves. The zero value takes everything and offers all the extensions it knows. It can be
// written as JSON.
type Script struct {
	// Hostname is the name in the banner. Empty means "sink.test".
	Hostname string `json:"hostname,omitempty"`
	// LMTP speaks LMTP (RFC 2033): LHLO, and a final reply for each accepted recipient.
	LMTP bool `json:"lmtp,omitempty"`
	// Without lists the extension keywords not to be offered, such as "PIPELINING"; "ESMTP" stands for EHLO itself.
	Without []string `json:"without,omitempty"`
	// Size is the largest message in octets, 0 for none. It is offered by SIZE, and held.
	Size int64 `json:"size,omitempty"`
	// Recipients is how many recipients a transaction may have before 452 4.5.3 is the answer, 0 for no limit.
	Recipients int `json:"recipients,omitempty"`
	// SessionMessages is how many transactions a session may have before 421 ends it, 0 for no limit.
	SessionMessages int `json:"session_messages,omitempty"`
	// Announce tells Recipients and SessionMessages by LIMITS (RFC 9422).
	Announce bool `json:"announce,omitempty"`
	// Sessions is how many sessions may be open before a connection is greeted with 421, 0 for no limit.
	Sessions int `json:"sessions,omitempty"`
	// Rate is the messages accepted in a second, 0 for no limit. What comes faster waits for its final reply, or is
	// refused at MAIL with RateReply if that is set.
	Rate      float64 `json:"rate,omitempty"`
	RateReply string  `json:"rate_reply,omitempty"`
	// Greylist refuses a triplet of client address, sender and recipient with 450 4.7.1 until this time after its
	// first try.
	Greylist Duration `json:"greylist,omitempty"`
	// Idle ends a session with 421 when its client says nothing for so long, 0 for never.
	Idle Duration `json:"idle,omitempty"`
	// Rules are asked in order; the first that applies at a point acts, and only it.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule says what happens at a point of the dialog instead of the usual reply, or around it.
type Rule struct {
	At Point `json:"at"`
	// Match is a pattern with "*" for any run of characters, compared without regard to case: to the recipient at
	// "rcpt" (and at "final" with LMTP), to the sender at the other points of a transaction. Empty matches all.
	Match string `json:"match,omitempty"`
	// From lets the rule begin with so many-th such point, counted in the transaction at "rcpt", else in the
	// session. 0 is the first.
	From int `json:"from,omitempty"`
	// Skip spares the first so many points the rule would act on, counted over all sessions; Times ends it after so
	// many. 0 is no bound.
	Skip  int `json:"skip,omitempty"`
	Times int `json:"times,omitempty"`
	// Share is the part of the points it acts on, chosen at random, from 0 to 1. 0 is all.
	Share float64 `json:"share,omitempty"`

	// Reply replaces the usual reply: code, text, and "\n" between lines. A 2yz or, at "data", 3yz reply has its
	// usual effect.
	Reply string `json:"reply,omitempty"`
	// Raw replaces the usual reply by these octets as they are.
	Raw string `json:"raw,omitempty"`
	// Delay waits before the reply.
	Delay Duration `json:"delay,omitempty"`
	// Cut sends only the first so many octets of the reply, then drops the connection.
	Cut int `json:"cut,omitempty"`
	// Drop ends the connection, instead of the usual reply, or after Reply, Raw, or the usual reply if After is
	// set.
	Drop Drop `json:"drop,omitempty"`
	// Stall says nothing more from there on, and leaves the connection open. At "body" nothing more is read either.
	Stall bool `json:"stall,omitempty"`
	After bool `json:"after,omitempty"`
	// Octets and Percent say how much of a body is read before a rule at "body" acts; Percent is of the SIZE that
	// MAIL declared.
	Octets  int64 `json:"octets,omitempty"`
	Percent int   `json:"percent,omitempty"`
}

// Point is a place in the dialog.
type Point string

// The points of a session in their order.
const (
	AtBanner   Point = "banner" // a connection was accepted
	AtEhlo     Point = "ehlo"   // EHLO or LHLO
	AtHelo     Point = "helo"
	AtStartTLS Point = "starttls" // the command; a reply of 220 is followed by the handshake
	AtMail     Point = "mail"
	AtRcpt     Point = "rcpt"
	AtData     Point = "data"  // the DATA command; a BDAT command has no reply of its own, but can be dropped at
	AtBody     Point = "body"  // within the octets of a message
	AtFinal    Point = "final" // a message is complete
	AtRset     Point = "rset"
	AtNoop     Point = "noop"
	AtQuit     Point = "quit"
)

var points = []Point{AtBanner, AtEhlo, AtHelo, AtStartTLS, AtMail, AtRcpt, AtData, AtBody, AtFinal, AtRset, AtNoop, AtQuit}

// Drop is a way to end a connection.
type Drop string

// The ways to end a connection: in order, or by a reset.
const (
	DropFIN Drop = "fin"
	DropRST Drop = "rst"
)

// Duration is a time.Duration that is text in JSON: "1.5s".
type Duration time.Duration

// MarshalText returns the form of time.Duration.String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText takes what time.ParseDuration takes.
func (d *Duration) UnmarshalText(p []byte) error {
	v, err := time.ParseDuration(string(p))
	*d = Duration(v)
	return err
}

// extensions are the keywords of the reply to EHLO; "ESMTP" stands for the command.
var extensions = []string{
	"ESMTP", "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING",
}

// Validate reports everything that is wrong with the script.
func (s *Script) Validate() error {
	var errs []error
	for _, w := range s.Without {
		if !slices.Contains(extensions, strings.ToUpper(w)) {
			errs = append(errs, fmt.Errorf("without: %q is none of %s", w, strings.Join(extensions, ", ")))
		}
	}
	if s.Size < 0 || s.Recipients < 0 || s.SessionMessages < 0 || s.Sessions < 0 || s.Rate < 0 || s.Greylist < 0 ||
		s.Idle < 0 {
		errs = append(errs, errors.New("a limit is negative"))
	}
	if s.RateReply != "" && replyCode(s.RateReply) == 0 {
		errs = append(errs, fmt.Errorf("rate_reply: %q does not begin with a reply code", s.RateReply))
	}
	for i, r := range s.Rules {
		if err := r.validate(); err != nil {
			errs = append(errs, fmt.Errorf("rules[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Rule) validate() error {
	switch {
	case !slices.Contains(points, r.At):
		return fmt.Errorf("at: %q is no point of the dialog", r.At)
	case r.Drop != "" && r.Drop != DropFIN && r.Drop != DropRST:
		return fmt.Errorf("drop: %q is neither fin nor rst", r.Drop)
	case r.Reply != "" && r.Raw != "":
		return errors.New("reply and raw exclude each other")
	case r.Reply != "" && replyCode(r.Reply) == 0:
		return fmt.Errorf("reply: %q does not begin with a reply code", r.Reply)
	case r.Share < 0 || r.Share > 1:
		return fmt.Errorf("share: %v is not from 0 to 1", r.Share)
	case r.From < 0 || r.Skip < 0 || r.Times < 0 || r.Cut < 0 || r.Octets < 0 || r.Delay < 0:
		return errors.New("a number is negative")
	case r.Percent < 0 || r.Percent > 100:
		return fmt.Errorf("percent: %d is not from 0 to 100", r.Percent)
	}
	return nil
}

// replyCode returns the code that text begins with, or 0.
func replyCode(text string) int {
	if len(text) < 3 || len(text) > 3 && text[3] != ' ' && text[3] != '-' && text[3] != '\r' && text[3] != '\n' {
		return 0
	}
	code := 0
	for i := range 3 {
		if text[i] < '0' || text[i] > '9' {
			return 0
		}
		code = code*10 + int(text[i]-'0')
	}
	return code
}

// play is a script made ready to run.
type play struct {
	Script
	rules    map[Point][]*runningRule
	offers   map[string]bool
	greeting []byte // the reply to EHLO
}

// runningRule counts what a rule has done.
type runningRule struct {
	Rule
	pattern string
	wire    []byte // Reply or Raw
	code    int
	hits    atomic.Int64
}

func newPlay(s Script) (*play, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	if s.Hostname == "" {
		s.Hostname = "sink.test"
	}
	p := &play{Script: s, rules: map[Point][]*runningRule{}, offers: map[string]bool{}}
	for _, keyword := range extensions {
		without := func(w string) bool { return strings.EqualFold(w, keyword) }
		p.offers[keyword] = !slices.ContainsFunc(s.Without, without)
	}
	p.greeting = p.hello(nil)
	for _, r := range s.Rules {
		running := &runningRule{Rule: r, pattern: strings.ToLower(r.Match)}
		switch {
		case r.Reply != "":
			running.wire, running.code = replyLines(r.Reply), replyCode(r.Reply)
		case r.Raw != "":
			running.wire, running.code = []byte(r.Raw), replyCode(r.Raw)
		}
		p.rules[r.At] = append(p.rules[r.At], running)
	}
	return p, nil
}

// hello composes the reply to EHLO, with keywords that depend on the session.
func (p *play) hello(more []string) []byte {
	lines := []string{p.Hostname}
	for _, keyword := range extensions[1:] {
		switch {
		case !p.offers[keyword]:
		case keyword == "SIZE" && p.Size > 0:
			lines = append(lines, fmt.Sprintf("SIZE %d", p.Size))
		default:
			lines = append(lines, keyword)
		}
	}
	if limits := p.limits(); p.Announce && limits != "" {
		lines = append(lines, "LIMITS"+limits)
	}
	return replyLines("250 " + strings.Join(append(lines, more...), "\n"))
}

func (p *play) limits() string {
	var limits string
	if p.Recipients > 0 {
		limits += fmt.Sprintf(" RCPTMAX=%d", p.Recipients)
	}
	if p.SessionMessages > 0 {
		limits += fmt.Sprintf(" MAILMAX=%d", p.SessionMessages)
	}
	return limits
}

// replyLines makes the wire form of "250 first\nsecond".
func replyLines(reply string) []byte {
	code, text := reply[:3], strings.TrimPrefix(reply[3:], " ")
	lines := strings.Split(text, "\n")
	var out []byte
	for i, line := range lines {
		separator := byte('-')
		if i == len(lines)-1 {
			separator = ' '
		}
		out = append(out, code...)
		out = append(out, separator)
		out = append(out, line...)
		out = append(out, '\r', '\n')
	}
	return out
}

// ruleAt returns the rule that acts at a point, or nil. nth counts the point from 1.
func (p *play) ruleAt(at Point, address []byte, nth int, chance func() float64) *runningRule {
	for _, r := range p.rules[at] {
		if r.applies(address, nth, chance) {
			return r
		}
	}
	return nil
}

func (r *runningRule) applies(address []byte, nth int, chance func() float64) bool {
	if nth < r.From || r.pattern != "" && !matches(r.pattern, strings.ToLower(string(address))) {
		return false
	}
	if r.Share > 0 && chance() >= r.Share {
		return false
	}
	hit := r.hits.Add(1)
	return hit > int64(r.Skip) && (r.Times == 0 || hit <= int64(r.Skip+r.Times))
}

// matches compares s to a pattern in which "*" stands for any run of characters. It takes time in proportion to the
// product of the lengths at worst.
func matches(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			p = star + 1
			mark++
			i = mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
