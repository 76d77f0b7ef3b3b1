package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/event"
)

// story is what an event log tells, summed up as it grows. Reports that the server itself sent are left out.
type story struct {
	path string // of the log's current file
	read int64  // octets of it that are in the story
	seen map[string]bool

	messages  map[string]bool // ids of the application's messages
	final     map[string]bool // ids of their entries that have an outcome
	entries   int
	outcomes  map[string]int            // by type of event
	domains   map[string]map[string]int // by domain, then by type
	deferrals int
	deferred  map[string]int // deferrals by message
	done      map[string]bool
}

func newStory(path string) *story {
	return &story{
		path: path, seen: make(map[string]bool),
		messages: make(map[string]bool), final: make(map[string]bool), outcomes: make(map[string]int),
		domains: make(map[string]map[string]int), deferred: make(map[string]int), done: make(map[string]bool),
	}
}

// follow reads what the event log has got since the last time, as any program of a user would: JSON lines, repeats
// dropped by id.
func (s *story) follow() error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing has happened yet
	}
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(s.read, io.SeekStart); err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	lines := bufio.NewReaderSize(f, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // the last line is being written
		}
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		s.read += int64(len(line))
		e, err := event.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		if !s.seen[e.ID] {
			s.seen[e.ID] = true
			s.add(e)
		}
	}
}

func (s *story) add(e *event.Event) {
	if e.Type == event.Accepted {
		if e.Sender != "<>" && e.Sender != "" {
			s.messages[e.Message] = true
			s.entries += max(e.Recipients, 1)
		}
		return
	}
	if !s.messages[e.Message] {
		return
	}
	word := e.Type.String()
	switch e.Type {
	case event.Delivered, event.Bounced, event.Expired, event.Suppressed, event.Cancelled:
		s.outcomes[word]++
		s.final[e.Entry] = true
		s.done[e.Message] = e.Type == event.Delivered
	case event.Deferred:
		s.deferrals++
		s.deferred[e.Message]++
	default:
		return
	}
	_, domain, _ := strings.Cut(e.Recipient, "@")
	if s.domains[domain] == nil {
		s.domains[domain] = make(map[string]int)
	}
	s.domains[domain][word]++
}

// open returns how many entries have no outcome yet.
func (s *story) open() int { return s.entries - len(s.final) }

// example returns a message worth telling: deferred and delivered in the end, or the first.
func (s *story) example() string {
	ids := make([]string, 0, len(s.messages))
	for id := range s.messages {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if s.deferred[id] > 0 && s.done[id] {
			return id
		}
	}
	if len(ids) > 0 {
		return ids[0]
	}
	return ""
}
