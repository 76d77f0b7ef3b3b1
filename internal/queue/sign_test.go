package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
)

// TestReportsAreSigned: a report goes out signed for the host that it is from, in no tenant's name, and unsigned rather than not at all.
func TestReportsAreSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault error
		var signed string
		b := start(t, Options{Sign: func(_ context.Context, dst []byte, pieces [][]byte, domain, tenant string) ([]byte, error) {
			if domain != "mta.example.org" || tenant != "" {
				t.Errorf("signed for %q of %q", domain, tenant)
			}
			signed = ""
			for _, p := range pieces {
				signed += string(p)
			}
			return append(dst, "DKIM-Signature: v=1\r\n"...), fault
		}}, refusing)
		defer b.stop()
		for _, fault = range []error{nil, errors.New("no key")} {
			before := len(b.reports())
			b.accept(letter(b, to("bad", smtp.NotifyFailure)))
			synctest.Wait()
			if len(b.reports()) != before+1 {
				t.Fatalf("%d reports", len(b.reports())-before)
			}
			text := b.reports()[before]
			rest, ok := strings.CutPrefix(text, "DKIM-Signature: v=1\r\n")
			if ok != (fault == nil) || rest != signed {
				t.Errorf("with %v:\n%s\nwhat was signed:\n%s", fault, text, signed)
			}
			if _, err := dsn.Parse([]byte(text)); err != nil {
				t.Error(err)
			}
			if h, err := message.ParseHeader([]byte(rest)); err != nil || h.Count("From") != 1 {
				t.Errorf("%v:\n%s", err, rest)
			}
		}
	})
}
