package crash

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
)

// faultEnv hands a fault to a server that runs in a process of the test program, where the file system can fail.
const faultEnv = "GODWIT_CRASH_FAULT"

// fault is what a file system does instead of its work. Errors come instead of the operation, delays before it.
type fault struct {
	Ops    []string      `json:"ops"`              // kinds of operation, see opNames
	Dirs   []string      `json:"dirs,omitempty"`   // below data_dir: "journal", "index", "store"; empty: all
	First  int           `json:"first,omitempty"`  // the first such operation that fails, from 1; 0 is 1
	Times  int           `json:"times,omitempty"`  // how many fail; 0: all from there on
	Share  float64       `json:"share,omitempty"`  // which part of them, at random; 0: all
	Seed   uint64        `json:"seed,omitempty"`   // of that choice
	Error  string        `json:"error,omitempty"`  // see errnos
	Delay  time.Duration `json:"delay,omitempty"`  // nanoseconds
	Serves bool          `json:"serves,omitempty"` // counts begin when mail is taken
}

var opNames = map[string][]errorfs.OpKind{
	"sync":   {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
	"write":  {errorfs.OpFileWrite, errorfs.OpFileWriteAt},
	"create": {errorfs.OpCreate, errorfs.OpReuseForWrite},
	"open":   {errorfs.OpOpen, errorfs.OpOpenDir, errorfs.OpList},
	"rename": {errorfs.OpRename, errorfs.OpLink},
	"remove": {errorfs.OpRemove},
}

var errnos = map[string]syscall.Errno{
	"EIO": syscall.EIO, "EROFS": syscall.EROFS, "EDQUOT": syscall.EDQUOT, "EMFILE": syscall.EMFILE,
	"ENOMEM": syscall.ENOMEM, "ENOSPC": syscall.ENOSPC,
}

// env returns the fault as what the server's environment says.
func (f *fault) env() string {
	text, err := json.Marshal(f)
	if err != nil {
		return faultEnv + "=" + err.Error() // of no use to anybody, so the server will not start
	}
	return faultEnv + "=" + string(text)
}

// injector is a fault at work.
type injector struct {
	fault
	data  string
	kinds []errorfs.OpKind
	log   *slog.Logger
	ready <-chan struct{}

	mu   sync.Mutex
	rand *rand.Rand
	seen int
	made int
}

// MaybeError is called before each operation.
func (i *injector) MaybeError(op errorfs.Op) error {
	if !slices.Contains(i.kinds, op.Kind) || !i.concerns(op.Path) || !i.due() {
		return nil
	}
	if i.Delay > 0 {
		i.log.Info("fault begins", "op", op.Kind, "path", op.Path, "delay", i.Delay.String())
		time.Sleep(i.Delay)
		i.log.Info("fault ends")
	}
	if i.Error == "" {
		return nil
	}
	err := errnos[i.Error]
	i.log.Info("fault", "op", op.Kind, "path", op.Path, "error", err.Error())
	return &os.PathError{Op: "injected", Path: op.Path, Err: err}
}

// String names it.
func (i *injector) String() string { return "fault" }

func (i *injector) concerns(path string) bool {
	if len(i.Dirs) == 0 {
		return true
	}
	for _, dir := range i.Dirs {
		if strings.HasPrefix(path, filepath.Join(i.data, dir)) {
			return true
		}
	}
	return false
}

// due says whether it is this operation's turn.
func (i *injector) due() bool {
	if i.Serves {
		select {
		case <-i.ready:
		default:
			return false
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.seen++; i.seen < max(i.First, 1) || i.Times > 0 && i.made >= i.Times {
		return false
	}
	if i.Share > 0 && i.rand.Float64() >= i.Share {
		return false
	}
	i.made++
	return true
}

// serveFaulty is `godwit serve` with a file system that fails. It returns the status of the process.
func serveFaulty(args []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := runFaulty(args, log); err != nil {
		log.Error("server failed", "error", err.Error())
		return 1
	}
	return 0
}

func runFaulty(args []string, log *slog.Logger) error {
	i := slices.Index(args, "--config")
	if i < 0 || i+1 >= len(args) {
		return errors.New("no configuration given")
	}
	cfg, err := config.Load(args[i+1])
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	in := &injector{data: cfg.DataDir, log: log, ready: ready}
	if err := json.Unmarshal([]byte(os.Getenv(faultEnv)), &in.fault); err != nil {
		return fmt.Errorf("read fault: %w", err)
	}
	for _, name := range in.Ops {
		in.kinds = append(in.kinds, opNames[name]...)
	}
	in.rand = rand.New(rand.NewPCG(cmp.Or(in.Seed, 1), 0))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	d, err := daemon.New(daemon.Options{Config: cfg, Logger: log, Version: "faulty", FS: errorfs.Wrap(vfs.Default, in)})
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-d.Ready():
			close(ready)
		case <-d.Done():
		}
	}()
	go func() {
		<-d.Failed()
		select {
		case <-d.Done():
		case <-time.After(5 * time.Second): // as `godwit serve` does
			os.Exit(1)
		}
	}()
	return d.Run(ctx)
}
