package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
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
		l.keepDamage()
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

// damageName is the file that tells the next process of damage: one JSON object for each stretch.
const damageName = "DAMAGE"

// maxKept bounds the stretches that the next process is told of; it finds others again, or there are enough.
const maxKept = 1000

// keepDamage writes down what is damaged, so that no later process takes a segment for whole because it has no reason
// to read it. A crash leaves the old list or the new one. damage is locked.
func (l *Log) keepDamage() {
	if l.options.ReadOnly || len(l.damage.list) > maxKept {
		return
	}
	var text bytes.Buffer
	for _, d := range l.damage.list {
		line, err := json.Marshal(d)
		if err != nil {
			continue
		}
		text.Write(append(line, '\n'))
	}
	if err := l.replace(damageName, text.Bytes()); err != nil {
		l.logger.Warn("the list of damage cannot be kept", slog.Any("error", err))
	}
}

// replace gives a small file new contents.
func (l *Log) replace(name string, data []byte) error {
	making := l.path(name + suffixMaking)
	f, err := l.fs.Create(making, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := l.fs.Rename(making, l.path(name)); err != nil {
		return err
	}
	return l.syncDir()
}

// loadDamage learns of the damage that earlier processes found in segments that are there, or were put aside and are
// kept. What nobody keeps any more is forgotten.
func (l *Log) loadDamage(segments []*segment) {
	f, err := l.fs.Open(l.path(damageName))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		l.logger.Warn("the list of damage cannot be read", slog.Any("error", err))
		return
	}
	defer f.Close()
	names, err := l.fs.List(l.options.Dir)
	if err != nil {
		return
	}
	l.damage.Lock()
	defer l.damage.Unlock()
	for lines := bufio.NewScanner(io.NewSectionReader(f, 0, 1<<20)); lines.Scan(); {
		var d Damage
		if json.Unmarshal(lines.Bytes(), &d) != nil {
			continue
		}
		i := slices.IndexFunc(segments, func(s *segment) bool { return s.id == d.Extent })
		aside := fmt.Sprintf("%016x", uint64(d.Extent))
		switch {
		case i >= 0:
			segments[i].damaged.Store(true)
		case !slices.ContainsFunc(names, func(name string) bool {
			return strings.HasPrefix(name, aside) && strings.HasSuffix(name, suffixDamaged)
		}):
			continue
		}
		l.damage.list = append(l.damage.list, d)
		l.metrics.damage.Inc()
	}
	if n := len(l.damage.list); n > 0 {
		l.logger.Error("the journal is damaged, as an earlier process found; what is damaged is kept", slog.Int("stretches", n))
	}
}
