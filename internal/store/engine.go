package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// engineLogger hands Pebble's words to slog. Its Fatalf does not return: Pebble goes on after it as if nothing had
// happened and acknowledges the write it has just lost.
type engineLogger struct{ db *DB }

func (l engineLogger) Infof(format string, args ...any) {
	l.db.logger.Debug(fmt.Sprintf(format, args...))
}

func (l engineLogger) Errorf(format string, args ...any) {
	l.db.logger.Error(fmt.Sprintf(format, args...))
}

func (l engineLogger) Fatalf(format string, args ...any) {
	first, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n") // where in Pebble it was found follows
	l.db.fail(errors.New(first))
}

// troubles is since when background work has done nothing but fail.
type troubles struct {
	mu    sync.Mutex
	since time.Time
}

// longestPause bounds the pause after a failed background job.
const longestPause = time.Second

// listener slows Pebble down when its background work fails, since it tries again at once and for ever, and gives up
// after Options.Patience: then Apply would wait for ever too.
func (d *DB) listener() *pebble.EventListener {
	var t troubles
	done := func(err error) {
		if err == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.since = time.Time{}
		}
	}
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			t.mu.Lock()
			if t.since.IsZero() {
				t.since = time.Now()
			}
			lasting := time.Since(t.since)
			t.mu.Unlock()
			d.logger.Warn("store: background work failed", "error", err)
			if lasting >= d.options.Patience {
				d.fail(fmt.Errorf("background work has failed for %v: %w", lasting.Round(time.Millisecond), err))
			}
			select {
			case <-time.After(min(longestPause, d.options.Patience/4)):
			case <-d.closed:
			}
		},
		FlushEnd:      func(i pebble.FlushInfo) { done(i.Err) },
		CompactionEnd: func(i pebble.CompactionInfo) { done(i.Err) },
	}
}
