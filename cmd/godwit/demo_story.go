package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/godwit-mta/godwit/event"
)

// story is what an event log tells, summed up. Reports that the server itself sent are left out.
type story struct {
	messages  map[string]bool // ids of the application's messages
	final     map[string]bool // ids of their entries that have an outcome
	entries   int
	outcomes  map[string]int            // by type of event
	domains   map[string]map[string]int // by domain, then by type
	deferrals int
	deferred  map[string]int // deferrals by message
	done      map[string]bool
}

// readStory reads an event log as any program of a user would: JSON lines, repeats dropped by id.
func readStory(dir string) (*story, error) {
	s := &story{
		messages: make(map[string]bool), final: make(map[string]bool), outcomes: make(map[string]int),
		domains: make(map[string]map[string]int), deferred: make(map[string]int), done: make(map[string]bool),
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	slices.Sort(files)
	seen := make(map[string]bool)
	for _, name := range files {
		if err := s.readFile(name, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *story) readFile(name string, seen map[string]bool) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // closed and compressed meanwhile
	}
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := event.ParseLine(lines.Bytes())
		if err != nil {
			continue // the last line is being written
		}
		if !seen[e.ID] {
			seen[e.ID] = true
			s.add(e)
		}
	}
	return lines.Err()
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
