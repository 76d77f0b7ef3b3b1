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

// noteDamage remembers that the octets of s from from to to are not what was written. What is known already is not noted again, nor
// is anything of a removed segment, whose blocks may belong to another one by now.
func (l *Log) noteDamage(s *segment, from, to int64, reason string) {
	if s.removed.Load() {
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
