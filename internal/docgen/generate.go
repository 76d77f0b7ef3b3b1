package main

import (
	"fmt"
	"os"

	"github.com/godwit-mta/godwit/internal/config/configdoc"
)

const (
	configGo      = "internal/config/config.go"
	configExample = "docs/godwit.example.yaml"
	rfcFile       = "docs/rfc.md"
	eventGo       = "event/event.go"
	eventExamples = "internal/outbox/testdata/events.jsonl"
)

// generate returns the content of every generated file by its path.
func generate() (map[string][]byte, error) {
	files := make(map[string][]byte)
	var err error
	if files["internal/config/schema.json"], err = configdoc.Schema(configGo); err != nil {
		return nil, fmt.Errorf("configuration schema: %w", err)
	}
	example, err := os.ReadFile(configExample)
	if err != nil {
		return nil, err
	}
	if files["docs/reference/config.md"], err = configdoc.Reference(configGo, example); err != nil {
		return nil, fmt.Errorf("configuration reference: %w", err)
	}
	if files["docs/reference/events.md"], err = eventsReference(eventGo, eventExamples); err != nil {
		return nil, fmt.Errorf("reference of events: %w", err)
	}
	if files[rfcFile], err = rfcTable(rfcFile); err != nil {
		return nil, fmt.Errorf("table of RFCs: %w", err)
	}
	if err := cliReference(files); err != nil {
		return nil, fmt.Errorf("command reference: %w", err)
	}
	return files, nil
}
