package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// injury is what row L-6 does to the data directory of a server that is not running.
type injury struct {
	name string
	// files are patterns below data_dir; the file that is hurt is the middle one of those that match, or the last.
	files []string
	last  bool
	hurt  func(path string, r *rand.Rand) error
	// harmless says that no mail may be missing afterwards.
	harmless bool
}

// fresh says that it is done to what the first kill left. Other data has seen one start more, which ended the
// journal's segment and made tables of the index's log.
func (i *injury) fresh() bool {
	return strings.HasSuffix(i.files[0], "/*.seg") || strings.HasSuffix(i.files[0], "/*.log")
}

// injuries returns what is done to each kind of file.
func injuries() []injury {
	segment, tail := []string{"journal/*-*.seg"}, []string{"journal/*.seg"}
	return []injury{
		{"torn bytes behind the end of the journal", tail, true, appendNoise, true},
		{"zeros behind the end of the journal", tail, true, appendZeros, true},
		{"end of the journal cut off", tail, true, cutTail, false},
		{"bit in the middle of the journal", segment, false, flipBit, false},
		{"segment of the journal cut in half", segment, false, cutHalf, false},
		{"hole in a segment of the journal", segment, false, zeroFill, false},
		{"begin of a segment of the journal zeroed", segment, false, zeroBegin, false},
		{"segment of the journal gone", segment, false, remove, false},
		{"bit in a table of the index", []string{"index/*.sst"}, false, flipBit, true},
		{"table of the index cut", []string{"index/*.sst"}, false, cutHalf, true},
		{"table of the index gone", []string{"index/*.sst"}, false, remove, true},
		{"bit in the manifest of the index", []string{"index/MANIFEST-*"}, true, flipBit, true},
		{"manifest of the index cut", []string{"index/MANIFEST-*"}, true, cutHalf, true},
		{"manifest of the index zeroed", []string{"index/MANIFEST-*"}, true, zeroFill, true},
		{"bit in the log of the index", []string{"index/*.log"}, true, flipBit, true},
		{"log of the index zeroed", []string{"index/*.log"}, true, zeroFill, true},
		{"index gone", []string{"index"}, true, remove, true},
		{"bit in the store", []string{"store/*.log", "store/*.sst"}, true, flipBit, true},
		{"manifest of the store zeroed", []string{"store/MANIFEST-*"}, true, zeroFill, true},
		{"bit in the event log", []string{"events/current.jsonl"}, true, flipBit, true},
		{"event log cut", []string{"events/current.jsonl"}, true, cutHalf, true},
		{"cursor of the event log zeroed", []string{"events/cursor"}, true, zeroFill, true},
	}
}

func edit(path string, change func(p []byte) []byte) error {
	p, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(p), 0o600)
}

func flipBit(path string, r *rand.Rand) error {
	return edit(path, func(p []byte) []byte {
		if len(p) > 0 {
			p[len(p)/4+r.IntN(len(p)/2+1)] ^= 1 << r.IntN(8)
		}
		return p
	})
}

func cutHalf(path string, _ *rand.Rand) error {
	return edit(path, func(p []byte) []byte { return p[:len(p)/2] })
}

// cutTail takes the last records, which were acknowledged: no machine can know of what is not there, unless
// something else does.
func cutTail(path string, r *rand.Rand) error {
	return edit(path, func(p []byte) []byte {
		p = bytes.TrimRight(p, "\x00") // what is allocated ahead
		return p[:max(len(p)-8192-r.IntN(8192), 0)]
	})
}

func zeroFill(path string, _ *rand.Rand) error {
	return edit(path, func(p []byte) []byte {
		middle := p[len(p)/4 : len(p)/4+len(p)/2]
		clear(middle[:min(len(middle), 64<<10)])
		return p
	})
}

func zeroBegin(path string, _ *rand.Rand) error {
	return edit(path, func(p []byte) []byte {
		clear(p[:min(len(p), 8192)])
		return p
	})
}

// appendNoise writes what a power cut may leave of a write that nobody was told of.
func appendNoise(path string, r *rand.Rand) error {
	return edit(path, func(p []byte) []byte {
		end := len(bytes.TrimRight(p, "\x00"))
		end += 64 // the last record may end in zeros
		for len(p) < end+3000 {
			p = append(p, 0)
		}
		for i := range 3000 {
			p[end+i] = byte(r.Uint32())
		}
		return p
	})
}

func appendZeros(path string, _ *rand.Rand) error {
	return edit(path, func(p []byte) []byte { return append(p, make([]byte, 20000)...) })
}

func remove(path string, _ *rand.Rand) error { return os.RemoveAll(path) }

// choose returns the file that is hurt, empty if there is none of its kind.
func (i *injury) choose(data string) (string, error) {
	var found []string
	for _, pattern := range i.files {
		list, err := filepath.Glob(filepath.Join(data, pattern))
		if err != nil {
			return "", err
		}
		found = append(found, list...)
	}
	found = slices.DeleteFunc(found, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || !info.IsDir() && info.Size() == 0
	})
	if len(found) == 0 {
		return "", nil
	}
	slices.Sort(found)
	if i.last {
		return found[len(found)-1], nil
	}
	return found[len(found)/2], nil
}

// runDamage is row L-6: a queue is filled, its server killed, and on copies of its data each kind of file is hurt.
// A server that starts on them delivers everything but what it names as damaged, and deletes nothing that it could
// not read.
func runDamage(ctx context.Context, t *Trial) (*Verdict, error) {
	queued := t.runs(1500, 10000)
	o := setting{
		binary: t.Binary, dir: t.Dir, seed: t.Seed, down: true, pending: int64(queued), plain: true, largest: 8 << 10,
		sites:  []string{"quick.example", "lmtp.example"},
		config: serverConfig{segment: "1MiB", retry: "[1h]"},
	}
	return perform(ctx, o, func(ctx context.Context, s *stage) error {
		s.v.checks(Row)
		fresh, whole := filepath.Join(s.o.dir, "fresh"), filepath.Join(s.o.dir, "whole")
		if err := s.fillQueue(ctx, queued); err != nil {
			return err
		}
		if err := copyTree(ctx, fresh, s.o.data); err != nil {
			return err
		}
		if err := s.startOnce(ctx); err != nil {
			return err
		}
		if err := copyTree(ctx, whole, s.o.data); err != nil {
			return err
		}
		if err := s.world.setDown(false); err != nil {
			return err
		}
		for n, i := range injuries() {
			whole := whole
			if i.fresh() {
				whole = fresh
			}
			if err := s.injure(ctx, whole, &i, rand.New(rand.NewPCG(t.Seed, uint64(200+n)))); err != nil {
				return fmt.Errorf("%s: %w", i.name, err)
			}
		}
		// At last the data as it was, so that the ledgers come out even.
		if err := s.restore(ctx, whole); err != nil {
			return err
		}
		return errors.Join(s.sink.restart(), s.finish(ctx, nil, nil))
	})
}

// fillQueue lets submitters fill the queue, and kills the server when the index has been written at least once.
func (s *stage) fillQueue(ctx context.Context, queued int) error {
	p, err := s.start()
	if err != nil {
		return err
	}
	s.door.set(p.address)
	for deadline := time.Now().Add(2 * time.Minute); s.door.pending.Load() < int64(queued); {
		if !pause(ctx, 20*time.Millisecond) || !p.alive() || time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the queue has %d entries and not %d", s.door.pending.Load(), queued), p.end())
		}
	}
	s.endLoad()
	pause(ctx, 3*time.Second) // a checkpoint comes every 2 s
	return s.killNow(p)
}

// startOnce is one life without load.
func (s *stage) startOnce(ctx context.Context) error {
	p, err := s.start()
	if err != nil {
		return err
	}
	pause(ctx, 3*time.Second)
	return s.killNow(p)
}

// copyTree copies a directory with all that is in it but sockets, which are nobody's data.
func copyTree(ctx context.Context, to, from string) error {
	if err := os.Remove(filepath.Join(from, "admin.sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy data: %w: %s", err, out)
	}
	return nil
}

func (s *stage) restore(ctx context.Context, whole string) error {
	if err := os.RemoveAll(s.o.data); err != nil {
		return err
	}
	return copyTree(ctx, s.o.data, whole)
}

// injure hurts one file, starts the server, and looks at what it makes of it.
func (s *stage) injure(ctx context.Context, whole string, i *injury, r *rand.Rand) error {
	if err := s.restore(ctx, whole); err != nil {
		return err
	}
	path, err := i.choose(s.o.data)
	if err != nil {
		return err
	}
	if path == "" {
		s.v.note("%s: no such file", i.name)
		return nil
	}
	if err := i.hurt(path, r); err != nil {
		return err
	}
	if err := s.sink.restart(); err != nil {
		return err
	}
	logged, err := s.log.size()
	if err != nil {
		return err
	}
	p, left, err := s.outlive(ctx, i)
	if errors.Is(err, errDied) {
		return s.refuses(i, path, logged)
	}
	if err != nil {
		return err
	}
	if err := p.stop(30 * time.Second); err != nil {
		return err
	}
	said, err := s.log.since(logged)
	if err != nil {
		return err
	}
	s.damage = ""
	if err := s.check(ctx); err != nil {
		return err
	}
	said += s.damage
	s.damage = ""
	return s.compare(i, path, said, left)
}

// outlive starts the server on damaged data and lets it deliver what it can. Damage of the index may be found only
// then: the server ends, and whoever looks after services starts it again. The error is errDied if it does not
// start.
func (s *stage) outlive(ctx context.Context, i *injury) (*process, int64, error) {
	for try := 0; ; try++ {
		p, err := s.start()
		if err != nil {
			return nil, 0, err
		}
		var left int64
		if err = s.retry(ctx); err == nil {
			left, err = s.empties(ctx)
		}
		if err == nil {
			return p, left, nil
		}
		for until := time.Now().Add(endsWithin); p.alive() && time.Now().Before(until); {
			pause(ctx, 20*time.Millisecond)
		}
		if p.alive() || try == 2 {
			return nil, 0, errors.Join(err, p.end())
		}
		s.v.note("%s: found while the server ran, which ended and was started again", i.name)
	}
}

// refuses looks at a server that does not start, or ends: it must say why, and leave what it could not read.
func (s *stage) refuses(i *injury, path string, logged int64) error {
	said, err := s.log.since(logged)
	if err != nil {
		return err
	}
	if !complains(said) {
		s.v.breach(Row, "%s: the server ended and does not say why", i.name)
	}
	s.untouched(i, path)
	s.v.note("%s: the server refuses to go on: %s", i.name, lastComplaint(said))
	return nil
}

// empties waits until the queue is empty or nothing moves any more: bodies that cannot be read wait for a person. It
// returns how many entries are left.
func (s *stage) empties(ctx context.Context) (int64, error) {
	client := s.client()
	defer client.Close()
	moved, left := time.Now(), int64(-1)
	for {
		stats, err := client.SpoolStats(ctx)
		if err != nil {
			return 0, fmt.Errorf("wait for the queue: %w", err)
		}
		if n := int64(stats.Queued); n != left {
			moved, left = time.Now(), n
		}
		if quiet := time.Since(moved); quiet > 4*time.Second || left == 0 && quiet > 300*time.Millisecond {
			return left, nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return 0, context.Cause(ctx)
		}
	}
}

// compare holds what arrived against what was accepted. left entries are still in the queue, where anybody can see
// them.
func (s *stage) compare(i *injury, path, said string, left int64) error {
	submissions, err := readLines[submission](filepath.Join(s.o.dir, submitLedger))
	if err != nil {
		return err
	}
	receptions, err := readLines[reception](filepath.Join(s.o.dir, sinkLedger))
	if err != nil {
		return err
	}
	hashes, ids := make(map[delivery]string), make(map[delivery]string)
	begun := make(map[string]*submission)
	for k := range submissions {
		line := &submissions[k]
		switch {
		case line.Outcome == "":
			begun[line.Token] = line
		case line.Outcome == accepted:
			for _, to := range begun[line.Token].To {
				hashes[delivery{line.Token, to}], ids[delivery{line.Token, to}] = begun[line.Token].Hash, line.Message
			}
		}
	}
	all := len(hashes)
	for k := range receptions {
		r := &receptions[k]
		if local(r.To) {
			continue
		}
		d := delivery{r.Token, r.To}
		if begun[r.Token] == nil || ids[d] == "" {
			s.v.breach(I3, "%s: %s came to %s, which was not accepted", i.name, r.Token, r.To)
		} else if r.Hash != begun[r.Token].Hash {
			s.v.breach(I2, "%s: %s came to %s with another content", i.name, r.Token, r.To)
		}
		delete(hashes, d)
	}
	missing, unnamed := len(hashes), 0
	for d := range hashes {
		if !strings.Contains(said, ids[d]) {
			unnamed++
		}
	}
	told := "says nothing"
	if complains(said) {
		told = "says: " + lastComplaint(said)
	}
	switch {
	case missing == 0:
	case i.harmless:
		s.v.Lost += missing
		s.v.breach(I1, "%s: %d of %d recipients got nothing; the server %s", i.name, missing, all, told)
	case !complains(said):
		s.v.Lost += missing
		s.v.breach(I1, "%s: %d of %d recipients got nothing, and the server says nothing", i.name, missing, all)
	}
	s.v.note("%s: %d of %d missing, %d of them still in the queue, %d not named in log and check; it %s",
		i.name, missing, all, left, unnamed, told)
	if strange := left - int64(missing); strange > 0 {
		s.v.breach(Row, "%s: %d entries are in the queue, and %d recipients got nothing", i.name, left, missing)
	}
	s.untouched(i, path)
	return nil
}

// untouched sees that what could not be read is still there: under its name, or kept apart.
func (s *stage) untouched(i *injury, path string) {
	if i.harmless || filepath.Base(filepath.Dir(path)) != "journal" || i.name == "segment of the journal gone" {
		return // what is made anew of the journal may go
	}
	number, _, _ := strings.Cut(filepath.Base(path), "-")
	number = strings.TrimSuffix(number, ".seg")
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(path), number+"*"))
	kept = slices.DeleteFunc(kept, func(name string) bool { return strings.HasSuffix(name, ".spare") })
	if err != nil || len(kept) == 0 {
		s.v.breach(Row, "%s: the damaged file is gone", i.name)
	}
}

// complains reports that a log has an error that is about what was found on the disk.
func complains(said string) bool { return lastComplaint(said) != "" }

func lastComplaint(said string) string {
	last := ""
	for line := range strings.Lines(said) {
		// What is no JSON is what the command says at its end.
		if strings.Contains(line, `"level":"ERROR"`) || !strings.HasPrefix(line, "{") && strings.TrimSpace(line) != "" {
			last = strings.TrimSpace(line)
		}
	}
	if len(last) > 240 {
		last = last[:240] + "..."
	}
	return last
}
