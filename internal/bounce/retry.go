package bounce

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// maxRetryAfter is the longest wait that is taken from a reply's words. More is not advice but a mistake.
const maxRetryAfter = 24 * time.Hour

// wait finds the time that a reply asks to wait: "in 00:05:00", "in 5 minutes", "for 300 seconds", "after 90s".
var wait = regexp.MustCompile(`\b(?:in|for|after|wait)\s+` +
	`(?:(\d{1,2}):(\d\d):(\d\d)\b|(\d{1,6})\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|h)\b)`)

// RetryAfter returns how long a temporary reply asks to wait before the next attempt, or zero if it names no time.
// Greylisting servers often do.
func RetryAfter(r smtp.Reply) time.Duration {
	if !r.Temporary() {
		return 0
	}
	m := wait.FindStringSubmatch(strings.ToLower(r.Text[:min(len(r.Text), maxText)]))
	if m == nil {
		return 0
	}
	number := func(s string) time.Duration {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0 // the expression lets only digits through, few enough; empty groups are not used
		}
		return time.Duration(n)
	}
	var d time.Duration
	switch {
	case m[1] != "":
		minutes, seconds := number(m[2]), number(m[3])
		if minutes > 59 || seconds > 59 {
			return 0
		}
		d = number(m[1])*time.Hour + minutes*time.Minute + seconds*time.Second
	case m[5][0] == 's':
		d = number(m[4]) * time.Second
	case m[5][0] == 'm':
		d = number(m[4]) * time.Minute
	default:
		d = number(m[4]) * time.Hour
	}
	if d > maxRetryAfter {
		return 0
	}
	return d
}
