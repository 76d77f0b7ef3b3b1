package spool

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats is what the spool holds and has done. Entries are counted since the spool was made; after an index had to be
// rebuilt, since the oldest record of the journal. At any time Accepted = Settled() + Queued().
type Stats struct {
	Accepted   uint64
	Delivered  uint64
	Bounced    uint64
	Expired    uint64
	Suppressed uint64
	Cancelled  uint64

	Waiting    int
	Claimed    int
	Held       int
	Unreported int // messages whose sender is to be told of final entries
	Queues     int

	OverlayMessages int   // in memory
	OverlayEntries  int   // in memory
	BodyBytes       int64 // of bodies in memory
	JournalBytes    int64
	LiveBytes       int64 // of these, bodies that are needed
	Extents         int
}

// IndexMemory returns the octets of memory that the index holds: its cache and what is not yet in its tables. Under load
// a table or two that it is done with may still be in memory beside, until it rests. It is dearer than Stats.
func (s *Spool) IndexMemory() int64 {
	if err := s.hold(); err != nil {
		return 0
	}
	defer s.gate.RUnlock()
	m := s.index.db.Metrics()
	return m.BlockCache.Size + int64(m.MemTable.Size) + int64(m.MemTable.ZombieSize)
}

// Queued returns how many entries are not final.
func (s Stats) Queued() int { return s.Waiting + s.Claimed + s.Held }

// Settled returns how many entries became final.
func (s Stats) Settled() uint64 {
	return s.Delivered + s.Bounced + s.Expired + s.Suppressed + s.Cancelled
}

// Stats returns the numbers of this moment. Those of entries belong together; those of space may be a little older or
// newer.
func (s *Spool) Stats() Stats {
	var st Stats
	for _, e := range s.journal.Extents() {
		st.Extents++
		st.JournalBytes += e.Bytes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.mu.totals
	st.Accepted = t.accepted
	st.Delivered, st.Bounced, st.Expired = t.final[Delivered], t.final[Bounced], t.final[Expired]
	st.Suppressed, st.Cancelled = t.final[Suppressed], t.final[Cancelled]
	st.Waiting, st.Claimed, st.Held = s.mu.waiting, s.mu.claimed, s.mu.held
	st.Unreported, st.Queues = len(s.mu.unreported.at), len(s.mu.queues)
	st.OverlayMessages, st.OverlayEntries, st.BodyBytes = len(s.mu.msgs), s.mu.resident, s.mu.bodyBytes
	for _, x := range s.mu.extents {
		st.LiveBytes += x.bytes
	}
	return st
}

// Queues describes all queues, in no order.
func (s *Spool) Queues() []QueueStat {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]QueueStat, 0, len(s.mu.queues))
	for _, q := range s.mu.queues {
		all = append(all, q.stat())
	}
	return all
}

// Queue describes one queue; false if it is empty.
func (s *Spool) Queue(key QueueKey) (QueueStat, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.mu.queues[key]
	if q == nil {
		return QueueStat{Key: key}, false
	}
	return q.stat(), true
}

// metrics are the numbers of a Spool for Prometheus.
type metrics struct {
	checkpoints  prometheus.Histogram
	written      prometheus.Counter
	removedBytes prometheus.Counter
	movedBytes   prometheus.Counter
	carries      prometheus.Counter
	interrupts   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "godwit", Subsystem: "spool", Name: name, Help: help})
	}
	return &metrics{
		checkpoints: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "godwit", Subsystem: "spool", Name: "checkpoint_seconds",
			Help:    "Time to write what changed to the index. A lasting rise means a slow disk or more traffic than it takes.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		written: counter("checkpoint_messages_total",
			"Messages written to the index. A lasting rise against accepted ones means that mail is not delivered at once."),
		removedBytes: counter("journal_removed_bytes_total",
			"Journal space given back. If it does not rise with traffic, old mail or a view that lags holds the journal."),
		movedBytes: counter("moved_bytes_total",
			"Message bytes copied forward to free journal space. A lasting rise means much old mail among short-lived mail."),
		carries: counter("carried_messages_total",
			"Messages whose state was copied forward to free journal space. A lasting rise means many retries."),
		interrupts: counter("interrupted_entries_total",
			"Entries that were in flight when the server died. Any rise means that it crashed or was killed."),
	}
}

func (m *metrics) register(s *Spool, reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		m.checkpoints, m.written, m.removedBytes, m.movedBytes, m.carries, m.interrupts, &collector{spool: s},
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

func (m *metrics) checkpointed(took time.Duration, n int) {
	m.checkpoints.Observe(took.Seconds())
	m.written.Add(float64(n))
}

func (m *metrics) removed(bytes int64) { m.removedBytes.Add(float64(bytes)) }
func (m *metrics) moved(bytes int64)   { m.movedBytes.Add(float64(bytes)) }
func (m *metrics) carried(n int)       { m.carries.Add(float64(n)) }
func (m *metrics) interruptions(n int) { m.interrupts.Add(float64(n)) }

// collector gives the numbers of Stats when they are asked for.
type collector struct{ spool *Spool }

var (
	acceptedDesc = prometheus.NewDesc("godwit_spool_accepted_entries_total",
		"Recipients taken responsibility for.", nil, nil)
	finalDesc = prometheus.NewDesc("godwit_spool_final_entries_total",
		"Entries that came to their end, by outcome. A lasting rise of bounced or expired ones means bad lists or blocked "+
			"delivery.",
		[]string{"outcome"}, nil)
	entriesDesc = prometheus.NewDesc("godwit_spool_entries",
		"Entries in the spool, by state. A lasting rise of waiting ones means that mail is not taken as fast as it comes.",
		[]string{"state"}, nil)
	unreportedDesc = prometheus.NewDesc("godwit_spool_unreported_messages",
		"Messages whose sender is to be told of failures. A lasting rise means that reports are not made.", nil, nil)
	queuesDesc = prometheus.NewDesc("godwit_spool_queues",
		"Queues that are not empty. A lasting rise costs memory.", nil, nil)
	overlayDesc = prometheus.NewDesc("godwit_spool_overlay_entries",
		"Entries in memory. A lasting rise means that checkpoints do not keep up.", nil, nil)
	bodiesDesc = prometheus.NewDesc("godwit_spool_body_bytes",
		"Message bytes kept in memory for first attempts. At its limit, messages are read back from the journal.", nil, nil)
	quarantinedDesc = prometheus.NewDesc("godwit_spool_quarantined_messages",
		"Messages that are held since damage made them unreadable. Any means that the disk or memory loses acknowledged data.",
		nil, nil)
	staysDesc = prometheus.NewDesc("godwit_spool_unremovable_segments",
		"Journal segments without mail that the file system does not remove. Any means that space does not come back.",
		nil, nil)
	indexMemoryDesc = prometheus.NewDesc("godwit_spool_index_memory_bytes",
		"Memory that the index holds: its cache and what is not yet in its tables. It stays near its bounds of 32 and 8 MiB.", nil, nil)
	liveDesc = prometheus.NewDesc("godwit_spool_live_bytes",
		"Message bytes of the journal that are needed.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		acceptedDesc, finalDesc, entriesDesc, unreportedDesc, queuesDesc, overlayDesc, bodiesDesc, liveDesc, indexMemoryDesc,
		quarantinedDesc, staysDesc,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.spool.Stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	count(acceptedDesc, st.Accepted)
	final := map[Outcome]uint64{
		Delivered: st.Delivered, Bounced: st.Bounced, Expired: st.Expired, Suppressed: st.Suppressed,
		Cancelled: st.Cancelled,
	}
	for o, n := range final {
		count(finalDesc, n, o.String())
	}
	states := []int{Waiting: st.Waiting, Claimed: st.Claimed, Held: st.Held}
	for state, n := range slices.All(states) {
		if state != 0 {
			gauge(entriesDesc, int64(n), State(state).String())
		}
	}
	gauge(unreportedDesc, int64(st.Unreported))
	gauge(queuesDesc, int64(st.Queues))
	gauge(overlayDesc, int64(st.OverlayEntries))
	gauge(bodiesDesc, st.BodyBytes)
	gauge(liveDesc, st.LiveBytes)
	gauge(indexMemoryDesc, c.spool.IndexMemory())
	damage := c.spool.Damage()
	gauge(quarantinedDesc, int64(damage.Quarantined))
	gauge(staysDesc, int64(len(damage.Stay)))
}
