package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say how to open a DB. Zero values mean defaults.
type Options struct {
	// Dir is the store's own directory. It is made if missing.
	Dir string
	// FS is the file system; default: the operating system's.
	FS vfs.FS
	// MemTableBytes bounds what is kept in memory before it becomes a table; default 1 MiB, at least 64 KiB. Twice
	// that may be used.
	MemTableBytes int64
	// CacheBytes bounds the blocks of tables kept in memory; default 2 MiB.
	CacheBytes int64

	// Fatal is called when the engine cannot go on: a write or sync failed, or a table is corrupt. It must end the
	// process, since the engine's state in memory and on disk may differ. Default: os.Exit(1). If it returns, the
	// engine's goroutine is stopped for ever and the store has failed; that is for tests.
	Fatal func(error)

	// Patience is how long background work (making tables of what is in memory) may fail in a row, as on a full disk,
	// before the engine is given up; default 1 min. What is applied meanwhile is safe in the engine's log, until
	// memory is full: then Apply waits.
	Patience time.Duration

	// Logger: nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

const (
	defaultMemTable = 1 << 20
	defaultPatience = time.Minute
	defaultCache    = 2 << 20
	minMemTable     = 64 << 10
)

func (o Options) filled() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTable
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.Fatal == nil {
		o.Fatal = func(error) { os.Exit(1) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no directory given"))
	}
	if o.MemTableBytes < minMemTable {
		errs = append(errs, fmt.Errorf("memtable of %d octets, at least %d", o.MemTableBytes, minMemTable))
	}
	if o.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("cache of %d octets is negative", o.CacheBytes))
	}
	if o.Patience < 0 {
		errs = append(errs, fmt.Errorf("patience %v is negative", o.Patience))
	}
	if len(errs) > 0 {
		return o, fmt.Errorf("store options: %w", errors.Join(errs...))
	}
	return o, nil
}

type metrics struct {
	applied   prometheus.Counter
	conflicts prometheus.Counter
	apply     prometheus.Histogram
	watchers  prometheus.Gauge
	failed    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		applied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_store_applied_batches_total",
			Help: "Batches made durable. A lasting rise while nobody changes settings means a loop.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "godwit_store_conflicts_total",
			Help: "Batches refused since a key had changed. A lasting rise means that two writers contend for one key.",
		}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "godwit_store_apply_seconds",
			Help:    "Time from the turn of a batch to its durability. A lasting rise means a slow or shared disk.",
			Buckets: prometheus.ExponentialBuckets(100e-6, 2, 15),
		}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_store_watchers",
			Help: "Watches open. A lasting rise means that watches are not ended.",
		}),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "godwit_store_failed_state",
			Help: "1 after a write has failed: nothing is taken until a restart.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.applied, m.conflicts, m.apply, m.watchers, m.failed} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
