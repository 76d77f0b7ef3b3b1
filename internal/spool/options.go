package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// Options say how to open a Spool. Zero values mean defaults.
type Options struct {
	// Dir is the spool's directory; the index lives in its "index" directory. It is made if missing.
	Dir string
	// FS is the file system of the index; default: the operating system's.
	FS vfs.FS
	// Journal is the truth. Its Run must be under way when Open is called, and until the spool's Run has returned.
	Journal journal.Journal

	// MemoryBudget is how much memory the bodies of messages on their first attempt may take; default 128 MiB, negative:
	// none. What does not fit is read back from the journal.
	MemoryBudget int64
	// Memory bounds all bodies of the process. Bodies are read back when it has room for them. Nil: nothing does.
	Memory *smtp.Budget
	// PendingBytes bounds the bodies whose acceptance is under way; default 64 MiB. Accept waits for room.
	PendingBytes int64
	// Checkpoint is the time between two checkpoints; default 2 s. It bounds what a start must replay.
	Checkpoint time.Duration
	// OverlayEntries is how many messages may have changed before a checkpoint is made early; default 50,000. Accept
	// waits when twice as many are in memory. Of the entries of one message, [Share] count as one message.
	OverlayEntries int

	// Interrupted says how long entries rest whose attempts were interrupted by the end of the process, once, twice,
	// ... in a row; default 1 s, 1 min, 5 min, 15 min, 30 min, 1 h. Each wait is lengthened at random by up to a
	// fifth.
	Interrupted []time.Duration

	// Waste is how many octets of dead messages the journal may hold before live ones are copied forward from extents
	// that have few; default 1 GiB, negative: without bound.
	Waste int64
	// MoveRate is how many octets a second are copied forward at most; default 16 MiB.
	MoveRate int64

	// IndexMemtable and IndexCache are octets of memory for the index; defaults 8 and 32 MiB.
	IndexMemtable int64
	IndexCache    int64

	// Fatal is called when the index has lost a write, and must end the process; default: os.Exit(1). The journal has
	// all that is needed at the next start.
	Fatal func(error)
	// Rand gives the jitter of rests; default: seeded at random.
	Rand rand.Source
	// Logger: nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// defaultInterrupted: one crash costs a second, a crash loop soon nothing.
var defaultInterrupted = []time.Duration{
	time.Second,      // 1 s after the first start
	time.Minute,      // 1 min
	5 * time.Minute,  // 6 min
	15 * time.Minute, // 21 min
	30 * time.Minute, // 51 min
	time.Hour,        // 1 h 51 min
}

const overlayHard = 2 // times OverlayEntries

// Share is how many entries of one message count as one where memory is bounded: they share an envelope and a body, and are
// attempted together. They take some 0.5 KiB each, a message with one entry 1.2 KiB and its body.
const Share = 4

func (o Options) filled() (Options, error) {
	fill := func(p *int64, n int64) {
		if *p == 0 {
			*p = n
		}
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	fill(&o.MemoryBudget, 128<<20)
	fill(&o.PendingBytes, 64<<20)
	fill((*int64)(&o.Checkpoint), int64(2*time.Second))
	fill(&o.Waste, 1<<30)
	fill(&o.MoveRate, 16<<20)
	fill(&o.IndexMemtable, 8<<20)
	fill(&o.IndexCache, 32<<20)
	if o.OverlayEntries == 0 {
		o.OverlayEntries = 50_000
	}
	if len(o.Interrupted) == 0 {
		o.Interrupted = defaultInterrupted
	}
	if o.Fatal == nil {
		o.Fatal = func(error) { os.Exit(1) }
	}
	if o.Rand == nil {
		o.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(o.Dir == "", "no directory given")
	bad(o.Journal == nil, "no journal given")
	bad(o.PendingBytes < 0, "pending bytes %d is negative", o.PendingBytes)
	bad(o.Checkpoint < 0, "checkpoint interval %v is negative", o.Checkpoint)
	bad(o.OverlayEntries < 0, "overlay of %d entries", o.OverlayEntries)
	bad(o.MoveRate < 0, "move rate %d is negative", o.MoveRate)
	bad(o.IndexMemtable < 64<<10, "index memtable of %d octets, at least 64 KiB", o.IndexMemtable)
	bad(o.IndexCache < 0, "index cache of %d octets", o.IndexCache)
	for _, d := range o.Interrupted {
		bad(d < 0, "rest of %v after an interruption is negative", d)
	}
	if err := errors.Join(errs...); err != nil {
		return o, fmt.Errorf("spool options: %w", err)
	}
	return o, nil
}
