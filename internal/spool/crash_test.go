package spool

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var (
	seedFlag = flag.Uint64("spool.seed", 0, "run this seed of the crash campaign alone and say what happens, or with -spool.runs begin with it")
	runsFlag = flag.Int("spool.runs", 0, "runs of the crash campaign; 0: the usual number")
)

// The crash campaign makes random changes through the whole interface, cuts the power or kills the process at a
// random write or sync, in the middle of whatever is going on, and compares what a new start finds with a model.
// Everything that was acknowledged must be there, everything else must be as before or as after the change.
func TestCrashCampaign(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	if *seedFlag != 0 && *runsFlag == 0 {
		if err := campaign(*seedFlag, keys, t.Logf); err != nil {
			t.Fatalf("seed %d: %v", *seedFlag, err)
		}
		return
	}
	runs := campaignRuns
	if testing.Short() {
		runs /= 4
	}
	if *runsFlag > 0 {
		runs = *runsFlag
	}
	seeds := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		wg.Go(func() {
			for seed := range seeds {
				if err := campaign(seed, keys, func(string, ...any) {}); err != nil {
					t.Errorf("seed %d: %v (repeat with -spool.seed=%d)", seed, err, seed)
				}
			}
		})
	}
	base := *seedFlag
	if base == 0 {
		base = uint64(time.Now().UnixNano())
	}
	for i := range runs {
		if t.Failed() {
			break
		}
		seeds <- base + uint64(i)
	}
	close(seeds)
	wg.Wait()
}

// newKeys makes keys to encrypt with: every other run of the campaign does.
func newKeys(t *testing.T) *seal.Keyring {
	t.Helper()
	masters, err := seal.ParseMasters([]byte(seal.NewMaster()))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Open(seal.Options{Dir: t.TempDir(), Masters: masters, Seal: true})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// trial is one run of the campaign: several lives of one spool.
type trial struct {
	keys    *seal.Keyring // nil: what is written is clear
	rng     *rand.Rand
	logf    func(string, ...any)
	ids     *message.IDs
	fs      *vfs.MemFS
	keep    int // percent of unsynced data that survives
	ops     int // at most, in this life
	overlay int // OverlayEntries
	sink    trialSink
	spool   *Spool
	log     *journal.Log
	stopped func() error
	opened  time.Time // when this life began

	msgs    []*Message
	history map[EntryID][]step // oldest first; the first is from op 0

	mu    sync.Mutex
	begun int // operations
	acked int // all up to this one are durable
	cut   int // file system operations until the clone
	cutAt int // what cut was
	clone *vfs.MemFS
	from  int // acked at the clone
	until int // begun at the clone

	verified bool // this life has looked at what it found

	inject   bool // the file system fails at the cut, instead of a crash
	sticky   bool // and from then on
	injected bool // it did
}

type trialSink struct {
	mu    sync.Mutex
	fresh []*Entry
}

func (k *trialSink) Fresh(_ *Message, es []*Entry) {
	k.mu.Lock()
	k.fresh = append(k.fresh, es...)
	k.mu.Unlock()
}
func (k *trialSink) Due(QueueKey, time.Time) {}

func campaign(seed uint64, keys *seal.Keyring, logf func(string, ...any)) error {
	t := &trial{
		rng: rand.New(rand.NewPCG(seed, 1)), logf: logf, ids: message.NewIDs(nil), fs: vfs.NewCrashableMem(),
		history: make(map[EntryID][]step),
	}
	if seed%2 == 0 {
		t.keys = keys
	}
	for range 2 + t.rng.IntN(3) {
		if err := t.life(); err != nil {
			return err
		}
	}
	t.cut = -1
	if err := t.open(); err != nil {
		return err
	}
	return errors.Join(t.verify(), t.close())
}

// life opens the spool, checks what it finds, changes things, and leaves the file system as a crash does.
func (t *trial) life() error {
	t.keep = []int{0, 50, 100}[t.rng.IntN(3)]
	t.clone, t.verified = nil, false
	t.ops = 40
	if t.rng.IntN(8) == 0 {
		t.ops = 300 // through several extents
	}
	t.cut = 1 + t.rng.IntN(4*t.ops)
	t.cutAt = t.cut
	t.inject, t.sticky, t.injected = t.rng.IntN(4) == 0, t.rng.IntN(2) == 0, false
	if t.rng.IntN(8) == 0 {
		if err := errors.Join(t.fs.RemoveAll("/spool"), syncDir(t.fs, "/")); err != nil {
			return err
		}
		t.logf("index lost")
	}
	opened := t.open()
	if opened != nil && !t.hurt() {
		return opened
	}
	var err error
	if opened == nil {
		err = t.work()
	}
	if err != nil && t.hurt() {
		t.logf("after a fault: %v", err)
		err = t.stays()
	}
	t.mu.Lock()
	if t.clone == nil {
		t.cutNow()
	}
	t.cut = -1
	t.mu.Unlock()
	if opened == nil {
		if e := t.close(); err == nil && e != nil && !t.hurt() {
			err = e
		}
	}
	if err == nil && t.rng.IntN(12) == 0 {
		err = errors.Join(t.check(t.fs), t.check(t.clone))
	}
	t.fs = t.clone
	t.logf("crash: %d%% kept, operations %d to %d", t.keep, t.from, t.until)
	return err
}

func (t *trial) work() error {
	t.mu.Lock()
	dead := t.clone != nil
	t.mu.Unlock()
	if dead {
		return nil // it crashed while it was opening
	}
	if err := t.verify(); err != nil {
		return err
	}
	for range t.ops {
		t.mu.Lock()
		dead := t.clone != nil
		t.mu.Unlock()
		if dead {
			return nil
		}
		if err := t.operate(); err != nil {
			return err
		}
		if err := t.verifyMemory(); err != nil {
			return err
		}
		if t.rng.IntN(40) == 0 {
			if err := errors.Join(t.spool.settled(), t.verifyExtents()); err != nil {
				return err
			}
		}
	}
	return nil
}

// stays checks that a spool that failed gives nothing away and takes nothing any more.
func (t *trial) stays() error {
	if t.spool.Err() == nil {
		return nil
	}
	m := t.newMessage()
	t.msgs = t.msgs[:len(t.msgs)-1]
	body := smtp.BodyOf(bodyFor(m))
	defer body.Release()
	if err := t.spool.Accept(context.Background(), m, body); !errors.Is(err, ErrFailed) {
		return fmt.Errorf("a failed spool took a message: %v", err)
	}
	for _, d := range trialDomains {
		es, err := t.spool.Claim(context.Background(), QueueKey{"t", d}, time.Now().Add(24*time.Hour), 10, nil)
		if !errors.Is(err, ErrFailed) || es != nil {
			return fmt.Errorf("a failed spool gave %d entries: %v", len(es), err)
		}
	}
	return nil
}

// operation is told of each operation of the file system, before it.
func (t *trial) operation(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo,
		errorfs.OpCreate, errorfs.OpRename, errorfs.OpRemove, errorfs.OpReuseForWrite:
	default:
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut < 0 || t.clone != nil {
		return nil
	}
	if t.inject {
		return t.fault(op)
	}
	if t.cut--; t.cut == 0 {
		t.cutNow()
	}
	return nil
}

// fault fails an operation. The index's log and manifest are spared: when they fail the process ends, which
// TestIndexFailureEndsProcess shows.
func (t *trial) fault(op errorfs.Op) error {
	isJournal := strings.HasPrefix(op.Path, "/journal")
	if !isJournal && !strings.HasSuffix(op.Path, ".sst") {
		return nil
	}
	if t.injected && t.sticky && isJournal {
		return errorfs.ErrInjected
	}
	if t.cut--; t.cut == 0 {
		t.injected = true
		return errorfs.ErrInjected
	}
	return nil
}

func (t *trial) hurt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.injected
}

// cutNow takes what a crash leaves. mu is held, so that acknowledgements come wholly before or after.
func (t *trial) cutNow() {
	from := t.acked
	t.clone = t.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: t.keep, RNG: rand.New(rand.NewPCG(t.rng2(), 2))})
	if t.verified { // otherwise what the life before left is yet to be looked at
		t.from, t.until = from, t.begun
	}
}

// rng2 may be used from any goroutine.
func (t *trial) rng2() uint64 { return uint64(t.cutAt)*7919 + uint64(t.begun) }

func (t *trial) open() error {
	t.opened = time.Now()
	fs := errorfs.Wrap(t.fs, errorfs.InjectorFunc(t.operation))
	var index vfs.FS = fs
	o := journal.Options{Dir: "/journal", FS: fs, SegmentSize: 16 << 10, Owner: "test", LazyDelay: 100 * time.Microsecond, Spares: -1}
	if t.keys != nil {
		o.Sealer, index = t.keys, t.keys.FS(fs)
	}
	log, err := journal.Open(o)
	if err != nil {
		return err
	}
	t.log = log
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- log.Run(ctx) }()
	t.stopped = func() error {
		stop()
		return errors.Join(<-ran, log.Close())
	}
	waste := int64(-1)
	if t.rng.IntN(2) == 0 {
		waste = 1 << 10
	}
	t.sink.fresh, t.overlay = nil, 16+t.rng.IntN(60)
	t.spool, err = Open(context.Background(), Options{
		Dir: "/spool", FS: index, Journal: log, Waste: waste, OverlayEntries: t.overlay,
		IndexMemtable: 64 << 10, IndexCache: 1 << 10, Fatal: func(error) {},
		Logger: slog.New(slog.NewTextHandler(logWriter(t.logf), nil)), Interrupted: []time.Duration{time.Second, time.Minute},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("Open: %w", err), t.stopped())
	}
	t.spool.SetSink(&t.sink)
	t.checkpoints(t.spool)
	return nil
}

// checkpoints does what Run does when it is asked for a checkpoint.
func (t *trial) checkpoints(s *Spool) {
	stop, stopped, journal := make(chan struct{}), make(chan struct{}), t.stopped
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-s.kick:
				_ = s.Checkpoint() // the spool remembers if it failed
			}
		}
	}()
	t.stopped = func() error {
		close(stop)
		<-stopped
		return journal()
	}
}

// logWriter is where the program's own log goes.
type logWriter func(string, ...any)

func (w logWriter) Write(p []byte) (int, error) {
	w("%s", p)
	return len(p), nil
}

func (t *trial) close() error { return errors.Join(t.stopped(), t.spool.Close()) }
