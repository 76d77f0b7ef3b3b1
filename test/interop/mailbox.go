//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// mailTime is how long mail may take from godwit's 250 to the mailbox.
const mailTime = 30 * time.Second

// traceFields are what servers on the way put before a message.
var traceFields = []string{"return-path", "x-original-to", "delivered-to", "envelope-to", "delivery-date", "received"}

// mailbox is a maildir of a peer, which keeps mail with LF.
type mailbox struct {
	dir string // that has new/

	mu struct {
		sync.Mutex
		seen map[string]bool   // by file name
		mail map[string][]mail // by recipient
	}
}

// mail is one message of a mailbox.
type mail struct {
	file  string
	trace []field // put before it on its way, the last first
	to    string  // envelope recipient
}

type field struct{ name, value string }

func newMailbox(dir string) *mailbox {
	b := &mailbox{dir: dir}
	b.mu.seen, b.mu.mail = make(map[string]bool), make(map[string][]mail)
	return b
}

// receive waits for n messages to a recipient and returns them in wire form, without what was put before them.
func (b *mailbox) receive(t *testing.T, to string, n int) (bodies [][]byte, all []mail) {
	t.Helper()
	for deadline := time.Now().Add(mailTime); ; time.Sleep(50 * time.Millisecond) {
		all = b.look(t, to)
		if len(all) >= n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages for %s in %s after %v, want %d", len(all), to, b.dir, mailTime, n)
		}
	}
	if len(all) > n {
		t.Fatalf("%d messages for %s, want %d", len(all), to, n)
	}
	for _, m := range all {
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		_, body := splitTrace(text)
		bodies = append(bodies, bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")))
	}
	return bodies, all
}

// one waits for the message to a recipient.
func (b *mailbox) one(t *testing.T, to string) ([]byte, mail) {
	t.Helper()
	bodies, all := b.receive(t, to, 1)
	return bodies[0], all[0]
}

// look reads what is new and returns the mail to a recipient.
func (b *mailbox) look(t *testing.T, to string) []mail {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	list, err := os.ReadDir(filepath.Join(b.dir, "new"))
	if err != nil && !os.IsNotExist(err) { // a peer makes it with the first message
		t.Fatal(err)
	}
	for _, e := range list {
		if b.mu.seen[e.Name()] {
			continue
		}
		b.mu.seen[e.Name()] = true
		m := mail{file: filepath.Join(b.dir, "new", e.Name())}
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		m.trace, _ = splitTrace(text)
		for _, f := range m.trace {
			if f.name == "delivered-to" || f.name == "envelope-to" {
				m.to = strings.ToLower(strings.Trim(f.value, "<>"))
				break
			}
		}
		b.mu.mail[m.to] = append(b.mu.mail[m.to], m)
	}
	return b.mu.mail[strings.ToLower(to)]
}

// splitTrace takes the trace fields off the begin of a message with LF.
func splitTrace(text []byte) (trace []field, rest []byte) {
	for rest = text; ; {
		name, _, ok := bytes.Cut(rest[:min(len(rest), 40)], []byte(":"))
		if !ok || !isTrace(string(name)) {
			return trace, rest
		}
		end := 0
		for {
			nl := bytes.IndexByte(rest[end:], '\n')
			if nl < 0 {
				return trace, rest
			}
			end += nl + 1
			if end >= len(rest) || rest[end] != ' ' && rest[end] != '\t' {
				break
			}
		}
		value := strings.Join(strings.Fields(string(rest[len(name)+1:end])), " ")
		trace = append(trace, field{strings.ToLower(string(name)), value})
		rest = rest[end:]
	}
}

func isTrace(name string) bool {
	for _, f := range traceFields {
		if strings.EqualFold(name, f) {
			return true
		}
	}
	return false
}

// traced returns the values of a trace field, the last server's first.
func (m *mail) traced(name string) (values []string) {
	for _, f := range m.trace {
		if f.name == name {
			values = append(values, f.value)
		}
	}
	return values
}

// sameBytes fails the test at the first byte in which what arrived is not what was sent.
func sameBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	around := func(p []byte) string { return fmt.Sprintf("%q", p[min(len(p), max(0, at-40)):min(len(p), at+40)]) }
	t.Errorf("%d bytes arrived, %d were sent; they differ at %d:\narrived %s\nsent    %s",
		len(got), len(want), at, around(got), around(want))
}
