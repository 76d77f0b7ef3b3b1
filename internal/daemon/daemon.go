// Package daemon puts the server together. It is the only package that knows all the others: it makes each part, hands it what
// it needs, starts them in the order that mail flows, and stops them in the same order.
//
//	d, err := daemon.New(daemon.Options{Config: cfg})   // opens and checks, starts nothing
//	err = d.Run(ctx)                                    // serves until ctx ends, then drains
//
// On the way up the journal comes first, then what is read from it, then delivery, and the listeners last, so that nothing is
// accepted that could not be kept. On the way down the listeners go first and the journal last, so that every outcome
// still finds its place. See ARCHITECTURE.md for a picture.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/httpapi"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/smtp"
)

// Options make a Daemon. Only Config is required.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for Reload. Nil: the configuration cannot be reloaded.
	Load func() (*config.Config, error)
	// Level is set to the configured log level when the configuration changes; may be nil.
	Level   *slog.LevelVar
	Logger  *slog.Logger // nil discards
	Version string       // for people

	// MemoryLimit is the memory that the process may use, 0: not known; see [LimitMemory].
	MemoryLimit int64

	// Scale shortens the time constants that no configuration key names, for demonstrations and tests; 0 means 1, no change.
	// With 60, what takes a minute in a server takes a second.
	Scale int

	// FS is the file system of journal, store and spool index; nil is the real one. Tests make it fail.
	FS vfs.FS

	// Internet is what tests put in place of parts of the internet.
	Internet Internet
}

// Daemon is the whole server in one process.
type Daemon struct {
	o       Options
	log     *slog.Logger
	metrics *prometheus.Registry
	started time.Time

	memory  *smtp.Budget // of bodies in flight
	kept    int64        // of these, for first attempts
	journal *journal.Log
	store   *store.DB
	audit   *audit.Log
	keys    *seal.Keyring // nil: nothing is encrypted
	inlets  []*inlet      // SMTP listeners, sockets open
	public  net.Listener
	admin   net.Listener

	ready  chan struct{} // closed when mail is taken
	broken chan struct{} // closed when a part has failed
	done   chan struct{} // closed when Run has returned
	state  atomic.Pointer[running]

	reload sync.Mutex // one reload at a time; guards cfg
	cfg    atomic.Pointer[config.Config]
}

// New opens the journal and the sockets and checks all that can be checked. It starts nothing. If it fails it holds nothing.
func New(o Options) (_ *Daemon, err error) {
	if o.Config == nil {
		return nil, errors.New("daemon: no configuration")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Scale = max(o.Scale, 1)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	d := &Daemon{
		o:       o,
		log:     o.Logger,
		metrics: prometheus.NewRegistry(),
		started: time.Now(),
		ready:   make(chan struct{}),
		broken:  make(chan struct{}),
		done:    make(chan struct{}),
	}
	d.cfg.Store(o.Config)
	defer func() {
		if err != nil {
			d.closeAll()
		}
	}()
	d.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.memory, d.kept = newMemory(o.Config, o.MemoryLimit, d.log)
	d.metrics.MustRegister(memoryMetrics{d.memory})
	if err := d.openData(o.Config); err != nil {
		return nil, err
	}
	if err := d.openSockets(o.Config); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Daemon) openData(cfg *config.Config) error {
	// What is in the data directory is other people's mail.
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data_dir: %w", err)
	}
	var err error
	if d.keys, err = OpenKeys(context.Background(), cfg); err != nil {
		return err
	}
	d.journal, err = journal.Open(journal.Options{
		Dir:         filepath.Join(cfg.DataDir, "journal"),
		FS:          d.o.FS,
		SegmentSize: int64(cfg.Journal.SegmentSize),
		MinFree:     int64(cfg.Journal.Reserve),
		Sealer:      Sealer(d.keys),
		Logger:      d.log,
		Registerer:  d.metrics,
	})
	if errors.Is(err, journal.ErrLocked) {
		return fmt.Errorf("data_dir %s is in use by another server: %w", cfg.DataDir, err)
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	d.store, err = store.Open(store.Options{
		Dir: filepath.Join(cfg.DataDir, "store"), FS: SealedFS(d.keys, d.diskFS()), Logger: d.log, Registerer: d.metrics,
	})
	if err != nil {
		return storeError(cfg.DataDir, err)
	}
	return d.openAudit(cfg)
}

func (d *Daemon) openSockets(cfg *config.Config) error {
	for _, l := range cfg.Listeners {
		socket, err := net.Listen("tcp", l.Address)
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
		d.inlets = append(d.inlets, &inlet{name: l.Name, socket: socket})
	}
	if cfg.HTTP.Address != "" {
		var err error
		if d.public, err = net.Listen("tcp", cfg.HTTP.Address); err != nil {
			return fmt.Errorf("http: %w", err)
		}
	}
	path := filepath.Join(cfg.DataDir, "admin.sock")
	// The journal's lock says that no server uses this directory, so a socket that is there is left over.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("admin socket: %w", err)
	}
	var err error
	if d.admin, err = listenAdmin(path); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

// listenAdmin opens the admin socket for the server's user and group. The directory is private already; the mode matters to an
// operator who opens the directory to a group.
func listenAdmin(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// closeAll gives back what New took. Run's own shutdown comes before it.
func (d *Daemon) closeAll() {
	var errs []error
	for _, in := range d.inlets {
		errs = append(errs, in.socket.Close())
	}
	for _, l := range []net.Listener{d.public, d.admin} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.journal != nil {
		errs = append(errs, d.journal.Close())
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("close", "error", err)
		}
	}
}

// Ready is closed when the listeners take mail.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Done is closed when Run has returned.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Failed is closed when a part has failed and Run is about to return its error. An attempt that waits for the last reply of a
// remote can hold Run up for minutes; nothing is lost by not waiting for it, since its outcome could not be recorded.
func (d *Daemon) Failed() <-chan struct{} { return d.broken }

// Addresses returns the bound address of each listener by its name.
func (d *Daemon) Addresses() map[string]string {
	m := make(map[string]string, len(d.inlets))
	for _, in := range d.inlets {
		m[in.name] = in.socket.Addr().String()
	}
	return m
}

// HTTPAddress returns the bound address of the HTTP endpoint; empty: off.
func (d *Daemon) HTTPAddress() string {
	if d.public == nil {
		return ""
	}
	return d.public.Addr().String()
}

// listening returns the addresses that mail is received on, so that an MX that points there is known to be ourselves.
func (d *Daemon) listening() []netip.AddrPort {
	list := make([]netip.AddrPort, 0, len(d.inlets))
	for _, in := range d.inlets {
		if a, ok := in.socket.Addr().(*net.TCPAddr); ok {
			list = append(list, a.AddrPort())
		}
	}
	return list
}

// Run serves until ctx ends, then drains: no new sessions, attempts under way may finish within drain_timeout, and every outcome is
// durable when it returns nil. It returns an error at once if a part fails that the promise rests on, such as the
// journal; the next start then goes by what is on the disk.
func (d *Daemon) Run(ctx context.Context) error {
	defer close(d.done)
	defer d.closeAll()
	p := newParts()
	defer p.wg.Wait()
	cfg := d.cfg.Load()

	journal := p.start(ctx, "journal", d.journal.Run)
	r, err := d.assemble(ctx, cfg)
	if err != nil {
		return errors.Join(err, journal.end())
	}
	d.state.Store(r)
	r.admin = p.serveHTTP(ctx, "admin interface", d.admin, httpapi.New(d.adminOptions(r)))
	if d.public != nil {
		r.public = p.serveHTTP(ctx, "http", d.public, d.publicHandler(cfg, r))
	}
	if err := d.recordStart(ctx, cfg); err != nil {
		return errors.Join(err, r.admin.end(), r.public.end(), r.spool.Close(), journal.end())
	}
	r.start(ctx, p)
	d.sayReady(cfg)

	var cause error
	select {
	case <-ctx.Done():
		d.log.Info("stopping", "drain_timeout", cfg.DrainTimeout)
	case cause = <-p.failed:
		d.log.Error("a part has failed, stopping", "error", cause)
		close(d.broken)
	}
	d.state.Store(nil)
	if err := notify("STOPPING=1"); err != nil {
		d.log.Debug("service manager", "error", err)
	}
	err = r.stop(d.cfg.Load().DrainTimeout, cause != nil)
	d.recordStop(cause)
	err = errors.Join(err, journal.end())
	if cause != nil {
		err = cause // the rest follows from it
	}
	if err != nil {
		d.log.Error("stopped", "error", err)
		return err
	}
	d.log.Info("stopped")
	return nil
}

func (d *Daemon) sayReady(cfg *config.Config) {
	close(d.ready)
	attrs := []any{"listeners", d.Addresses(), "hostname", cfg.Hostname, "data_dir", cfg.DataDir,
		"startup_ms", time.Since(d.started).Milliseconds()}
	if d.public != nil {
		attrs = append(attrs, "http", d.HTTPAddress())
	}
	d.log.Info("ready", attrs...)
	if err := notify("READY=1"); err != nil {
		d.log.Warn("service manager", "error", err)
	}
}

// serveHTTP answers HTTP on a listener until the part is ended.
func (p *parts) serveHTTP(ctx context.Context, name string, l net.Listener, h http.Handler) *part {
	return p.start(ctx, name, func(ctx context.Context) error {
		s := &http.Server{
			Handler:           h,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ConnContext:       httpapi.PeerContext,
			ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(stop); err != nil {
			s.Close() // who is still reading after 5 s reads no more
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// Status returns what the server is.
func (d *Daemon) Status() api.Status {
	s := api.Status{
		Version: d.o.Version, Started: d.started, Hostname: d.cfg.Load().Hostname, Listeners: d.Addresses(), HTTP: d.HTTPAddress(),
	}
	if r := d.state.Load(); r != nil {
		s.Ready = true
		for _, in := range d.inlets {
			s.Sessions += in.server.Sessions()
		}
	}
	return s
}
