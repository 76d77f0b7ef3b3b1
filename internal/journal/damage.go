package journal

import (
	"log/slog"
	"slices"
)

// maxDamage bounds what is remembered; a disk with more has told enough.
const maxDamage = 10_000

// Damage implements [Journal].
func (l *Log) Damage() []Damage {
	l.damage.Lock()
	defer l.damage.Unlock()
	return slices.Clone(l.damage.list)
}

// noteDamage remembers that the octets of s from from to to are not what was written. What is known already is not
// noted again, nor is anything of a removed segment, whose blocks may belong to another one by now.
func (l *Log) noteDamage(s *segment, from, to int64, reason string) {
	if l.isGone(s) {
		return
	}
	s.damaged.Store(true)
	d := Damage{Extent: s.id, From: position(s.id, from), To: position(s.id, max(to, from)), Reason: reason}
	l.damage.Lock()
	known := len(l.damage.list) >= maxDamage || slices.ContainsFunc(l.damage.list, func(o Damage) bool {
		return o.From <= d.From && d.To <= o.To && o.Extent == d.Extent
	})
	if !known {
		l.damage.list = append(l.damage.list, d)
	}
	l.damage.Unlock()
	if known {
		return
	}
	l.metrics.damage.Inc()
	l.logger.Error("journal segment is damaged", slog.Uint64("segment", uint64(s.id)), slog.Int64("from", from),
		slog.Int64("to", to), slog.String("reason", reason))
}

// isGone says whether s has been removed. One that only looks learns it from the directory: a removed file loses its
// name before its blocks are used again.
func (l *Log) isGone(s *segment) bool {
	if s.removed.Load() {
		return true
	}
	if !l.options.ReadOnly {
		return false
	}
	name, err := l.findName(s.id)
	if err != nil || name != "" {
		return false
	}
	s.removed.Store(true)
	return true
}

// findName returns the present name of a segment, or nothing.
func (l *Log) findName(id ExtentID) (string, error) {
	names, err := l.fs.List(l.options.Dir)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if n, _, ok := parseSegmentName(name); ok && n == id {
			return name, nil
		}
	}
	return "", nil
}
