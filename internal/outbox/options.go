package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/journal"
)

// Journal is what the log needs of the journal.
type Journal interface {
	NewReader(from journal.Position) (journal.Reader, error)
	End() journal.Position
}

// View is told up to where the log is durable. The spool keeps the journal from there on.
type View interface {
	Advance(journal.Position)
}

// Compression says how closed files are compressed.
type Compression string

// The compressions there are.
const (
	Gzip Compression = "gzip" // can be read everywhere
	Zstd Compression = "zstd" // half the time, and a third of it to search
	None Compression = "none"
)

// Limits bound the files. They may change while the log runs.
type Limits struct {
	MaxSize  int64         // octets after which the current file is closed; default 256 MiB
	MaxAge   time.Duration // after which it is closed; default 24 h
	Keep     int           // closed files kept; default 100
	KeepFor  time.Duration // how long a closed file is kept; default 30 days
	Compress Compression   // default gzip
}

// Options configure a log.
type Options struct {
	Dir     string  // is created if its parent exists
	Journal Journal // required
	View    View    // nil: nobody waits for the log
	Limits  Limits

	Sealer Sealer // nil: events are written in clear

	// DiskFull is called when the disk has no space for events, before they are tried again; nil: nobody can help.
	DiskFull func()

	Sync  time.Duration // how often the file is synced while there is something to sync; default 1 s
	Pause time.Duration // how long events gather before they are written; default 50 ms

	Logger     *slog.Logger          // nil: discarded
	Registerer prometheus.Registerer // nil: not registered
}

func (l Limits) withDefaults() (Limits, error) {
	if l.MaxSize == 0 {
		l.MaxSize = 256 << 20
	}
	if l.MaxAge == 0 {
		l.MaxAge = 24 * time.Hour
	}
	if l.Keep == 0 {
		l.Keep = 100
	}
	if l.KeepFor == 0 {
		l.KeepFor = 30 * 24 * time.Hour
	}
	if l.Compress == "" {
		l.Compress = Gzip
	}
	var errs []error
	if l.MaxSize < 0 || l.MaxAge < 0 || l.Keep < 0 || l.KeepFor < 0 {
		errs = append(errs, errors.New("outbox: a limit is negative"))
	}
	if l.Compress != Gzip && l.Compress != Zstd && l.Compress != None {
		errs = append(errs, fmt.Errorf("outbox: unknown compression %q", l.Compress))
	}
	return l, errors.Join(errs...)
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("outbox: Dir is missing"))
	}
	if o.Journal == nil {
		errs = append(errs, errors.New("outbox: Journal is missing"))
	}
	if o.Sync < 0 || o.Pause < 0 {
		errs = append(errs, errors.New("outbox: Sync or Pause is negative"))
	}
	limits, err := o.Limits.withDefaults()
	errs = append(errs, err)
	o.Limits = limits
	if o.View == nil {
		o.View = nobody{}
	}
	if o.Sync == 0 {
		o.Sync = time.Second
	}
	if o.Pause == 0 {
		o.Pause = 50 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, errors.Join(errs...)
}

type nobody struct{}

func (nobody) Advance(journal.Position) {}
