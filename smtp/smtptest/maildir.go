package smtptest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// maildir stores messages by the maildir protocol: written to tmp, then renamed into new.
type maildir struct {
	dir     string
	host    string
	counter atomic.Int64
}

func newMaildir(dir string) (*maildir, error) {
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("maildir: %w", err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &maildir{dir: dir, host: host}, nil
}

// store writes one message and returns its file. Nothing is synced: a sink promises no durability, and a crash may
// leave a file in tmp, or an empty one in new.
func (m *maildir) store(body []byte) (string, error) {
	now := time.Now()
	name := fmt.Sprintf("%d.M%dP%dQ%d.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), m.counter.Add(1), m.host)
	tmp, file := filepath.Join(m.dir, "tmp", name), filepath.Join(m.dir, "new", name)
	if err := os.WriteFile(tmp, body, 0o600); err != nil {
		return "", fmt.Errorf("maildir: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return "", fmt.Errorf("maildir: %w", err)
	}
	return file, nil
}

// remove takes back a message that was refused after all.
func (m *maildir) remove(file string) {
	if m != nil && file != "" {
		_ = os.Remove(file) // a message too many in a test's maildir, and visible there
	}
}
