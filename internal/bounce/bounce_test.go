package bounce

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/smtp"
)

var stages = map[string]Stage{"session": StageSession, "mail": StageSender, "rcpt": StageRecipient,
	"data": StageMessage}

type example struct {
	line  int
	class event.Class
	stage Stage
	reply smtp.Reply
	text  string
}

// parseReply reads "550 5.1.1 text" or, for lines joined by " / ", "554-a / 554 b".
func parseReply(t testing.TB, s string) (r smtp.Reply) {
	t.Helper()
	code, err := strconv.Atoi(s[:3])
	if err != nil {
		t.Fatalf("reply %q: %v", s, err)
	}
	r.Code = code
	text := s[3:]
	if text != "" {
		text = text[1:]
	}
	text = strings.TrimSpace(text)
	if first, rest, _ := strings.Cut(text, " "); strings.Count(first, ".") == 2 {
		var parts [3]uint16
		ok := true
		for i, p := range strings.Split(first, ".") {
			n, err := strconv.ParseUint(p, 10, 16)
			ok = ok && err == nil && n < 1000
			parts[i] = uint16(n)
		}
		if ok {
			r.Enhanced, text = smtp.EnhancedCode{Class: parts[0], Subject: parts[1], Detail: parts[2]}, rest
		}
	}
	r.Text = strings.ReplaceAll(text, " / ", "\n")
	return r
}

func examples(t testing.TB) []example {
	t.Helper()
	f, err := os.Open("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []example
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		class, rest, _ := strings.Cut(line, " ")
		stage, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
		text = strings.TrimSpace(text)
		c, err := event.ParseClass(class)
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		s, ok := stages[stage]
		if !ok || len(text) < 3 {
			t.Fatalf("line %d: %q", n, line)
		}
		all = append(all, example{n, c, s, parseReply(t, text), text})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestClassifyExamples(t *testing.T) {
	t.Parallel()
	all := examples(t)
	if len(all) < 150 {
		t.Fatalf("only %d examples", len(all))
	}
	for _, e := range all {
		if got := Classify(e.stage, e.reply); got != e.class {
			t.Errorf("replies.txt:%d: %s: got %s, want %s", e.line, e.text, got, e.class)
		}
	}
}

// TestRulesReachable finds rules that can never decide since an earlier one always does, unless both say the same.
func TestRulesReachable(t *testing.T) {
	t.Parallel()
	check := func(table string, rules []rule, classify func(smtp.Reply) event.Class) {
		for _, r := range rules {
			if r.words != strings.ToLower(r.words) || strings.TrimSpace(r.words) != r.words || r.words == "" {
				t.Errorf("%s: words %q are not lower case and trimmed", table, r.words)
			}
			if r.only != 0 && r.only != 4 && r.only != 5 {
				t.Errorf("%s: %q: only is %d", table, r.words, r.only)
			}
			code := max(r.only, 4)*100 + 99 // no code with a meaning
			text := strings.ReplaceAll(r.words, "*", " 0 ")
			if got := classify(smtp.Reply{Code: code, Text: strings.ToUpper(text)}); got != r.class {
				t.Errorf("%s: %q: classified as %s, rule says %s", table, r.words, got, r.class)
			}
		}
	}
	rcpt := func(r smtp.Reply) event.Class { return Classify(StageRecipient, r) }
	check("tells", tells, rcpt)
	check("phrases", phrases, rcpt)
	codes := func(table string, rules []codeRule) {
		for _, r := range rules {
			digit := max(r.only, 4)
			reply := smtp.Reply{Code: int(digit)*100 + 99, Enhanced: smtp.EnhancedCode{Class: digit, Subject: r.subject,
				Detail: r.detail}}
			if got := rcpt(reply); got != r.class {
				t.Errorf("%s: %v: classified as %s, rule says %s", table, reply, got, r.class)
			}
		}
	}
	codes("plainCodes", plainCodes)
	codes("vagueCodes", vagueCodes)
}

func TestClassifyOthers(t *testing.T) {
	t.Parallel()
	for _, code := range []int{0, 200, 250, 354, 600} {
		if got := Classify(StageRecipient, smtp.Reply{Code: code, Text: "user unknown"}); got != 0 {
			t.Errorf("%d: got %s, want none", code, got)
		}
	}
	long := smtp.Reply{Code: 550, Text: strings.Repeat("x", maxText) + "user unknown"}
	if got := Classify(StageRecipient, long); got != event.ClassUnknown {
		t.Errorf("words beyond the bound: got %s", got)
	}
}

// TestClassOfReasons walks the closed list: each reason that a failed attempt can have must have a class.
func TestClassOfReasons(t *testing.T) {
	t.Parallel()
	none := map[event.Reason]bool{}
	for _, r := range []event.Reason{event.Submitted, event.ReportGenerated, event.OK, event.Operator, event.Rule,
		event.DelayNotice,
		event.Drained, event.RelayDenied, event.InvalidSender, event.InvalidRecipient, event.InvalidMessage,
		event.LimitExceeded,
		event.StorageUnavailable, event.ClientLost, event.Unauthenticated, event.NotSigned,
		event.ReportTaken} {
		none[r] = true
	}
	reply := smtp.Reply{Code: 450, Text: "user unknown"}
	for _, r := range event.Reasons() {
		if got := Class(r, StageRecipient, reply); (got == 0) != none[r] {
			t.Errorf("%s has the class %q", r, got)
		}
	}
	if got := Class(event.RateLimited, StageSession, smtp.Reply{Code: 421,
		Text: "Too many connections"}); got != event.ClassTooManyConnections {
		t.Errorf("rate_limited with exact words: got %s", got)
	}
	if got := Class(event.RateLimited, StageSession, smtp.Reply{}); got != event.ClassRateLimited {
		t.Errorf("rate_limited without words: got %s", got)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want time.Duration
	}{
		{"Greylisting in action, please come back in 00:05:00", 5 * time.Minute},
		{"Greylisted, come back in 01:02:03 please", time.Hour + 2*time.Minute + 3*time.Second},
		{"Greylisted for 300 seconds", 5 * time.Minute},
		{"please try again in 60 seconds", time.Minute},
		{"Please retry in 5 minutes", 5 * time.Minute},
		{"retry after 90s", 90 * time.Second},
		{"Try again in 1 hour", time.Hour},
		{"wait 12 min", 12 * time.Minute},
		{"Try\nagain in 2 minutes", 2 * time.Minute},
		{"try again in 0 seconds", 0},
		{"try again later", 0},
		{"come back in 99:99:99", 0},
		{"retry in 99999999999999999999 seconds", 0},
		{"retry in 400 hours", 0},
		{"max 20 seconds of fame", 0},
		{"", 0},
		{"try again in", 0},
		{"in 5 parsecs", 0},
	} {
		if got := RetryAfter(smtp.Reply{Code: 451, Text: c.text}); got != c.want {
			t.Errorf("%q: got %v, want %v", c.text, got, c.want)
		}
	}
	if got := RetryAfter(smtp.Reply{Code: 550, Text: "try again in 60 seconds"}); got != 0 {
		t.Errorf("a permanent reply: got %v", got)
	}
}

func FuzzClassify(f *testing.F) {
	for _, e := range examples(f) {
		f.Add(uint8(e.stage), e.reply.Code, e.reply.Enhanced.Subject, e.reply.Enhanced.Detail, e.reply.Text)
	}
	f.Add(uint8(2), 451, uint16(0), uint16(0), "in 00:05:00")
	f.Fuzz(func(t *testing.T, stage uint8, code int, subject, detail uint16, text string) {
		r := smtp.Reply{Code: code, Enhanced: smtp.EnhancedCode{Class: uint16(code / 100), Subject: subject, Detail: detail},
			Text: text}
		s := Stage(stage % 4)
		c := Classify(s, r)
		if (c == 0) != (code/100 != 4 && code/100 != 5) {
			t.Fatalf("%v: class %q", r, c)
		}
		if c != Classify(s, r) {
			t.Fatal("two answers for one reply")
		}
		if d := RetryAfter(r); d < 0 || d > maxRetryAfter {
			t.Fatalf("%v: retry after %v", r, d)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	all := examples(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := &all[i%len(all)]
		Classify(e.stage, e.reply)
	}
}
