package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
)

func (a *app) serveCommand() *cobra.Command {
	var profile string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until SIGTERM or SIGINT, in the foreground, logging to standard error; with --json as JSON,
whatever log.format says. When all listeners are open, one record says "ready" with their addresses.

SIGTERM drains: no new sessions and attempts, those under way may finish within drain_timeout;
what is left stays in the spool. A second signal stops at once; nothing is lost by it either.
SIGHUP loads the configuration again; a file with a mistake changes nothing.`,
		Example: `  godwit serve --config /etc/godwit/godwit.yaml
  godwit serve --config godwit.yaml --data-dir ./data`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.serveConfig()
			if err != nil {
				return err
			}
			logger, level := newLogger(a.err, cfg.Log)
			for _, p := range cfg.Advice() {
				logger.Warn("configuration", "advice", p.Error())
			}
			return a.serve(c.Context(), cfg, logger, level, profile)
		},
	}
	a.configFlag(c)
	a.dataDirFlag(c)
	c.Flags().StringVar(&profile, "pprof", "",
		"serve CPU and memory profiles on this loopback `ADDRESS`, such as 127.0.0.1:6060")
	return c
}

// serveConfig loads the configuration with what the flags say laid over it.
func (a *app) serveConfig() (*config.Config, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if a.dataDir != "" {
		dir, err := filepath.Abs(a.dataDir)
		if err != nil {
			return nil, fmt.Errorf("find data directory: %w", err)
		}
		if cfg.Events.Dir == filepath.Join(cfg.DataDir, "events") {
			cfg.Events.Dir = filepath.Join(dir, "events")
		}
		cfg.DataDir = dir
	}
	if a.json {
		cfg.Log.Format = "json"
	}
	return cfg, nil
}

func (a *app) serve(
	ctx context.Context, cfg *config.Config, logger *slog.Logger, level *slog.LevelVar, profile string,
) error {
	d, err := daemon.New(daemon.Options{
		Config:  cfg,
		Level:   level,
		Logger:  logger,
		Version: readBuild().Version,

		MemoryLimit: daemon.LimitMemory(cfg, logger),
		Load:        a.serveConfig,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var side sync.WaitGroup
	defer side.Wait()
	defer cancel()
	if profile != "" {
		stop, err := serveProfiles(profile, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	side.Go(func() { paceCollector(ctx) })
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	side.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				if _, err := d.Reload(ctx, audit.Act{}); err != nil {
					logger.Error("configuration not reloaded, the old one stays", "error", err)
				}
			}
		}
	})
	again := make(chan os.Signal, 2)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	side.Go(func() { stopAtOnce(d, again, logger) })
	return d.Run(ctx)
}

// failureGrace is how long a server that has failed may take to say goodbye.
const failureGrace = 5 * time.Second

// stopAtOnce ends the process when a second signal comes, or when a server that has failed does not come to its end.
// What is on the disk is good at any moment, so there is nothing to tidy up.
func stopAtOnce(d *daemon.Daemon, signals <-chan os.Signal, logger *slog.Logger) {
	var late <-chan time.Time
	failed := d.Failed()
	for n := 0; n < 2; { // the first signal ends the context of Run too, and begins the drain
		select {
		case <-signals:
			n++
		case <-failed:
			failed, late = nil, time.After(failureGrace)
		case <-late:
			n = 2
		case <-d.Done():
			return
		}
	}
	logger.Warn("stopping at once")
	os.Exit(1)
}

func newLogger(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.SlogLevel())
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level
	}
	return slog.New(slog.NewTextHandler(w, o)), level
}

// serveProfiles answers net/http/pprof on a loopback address and returns a function that ends it.
func serveProfiles(address string, logger *slog.Logger) (stop func(), err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("--pprof %q is no address and port", address)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, usagef("--pprof %q is not a loopback address: profiles show what the server holds in memory", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != nil && err != http.ErrServerClosed {
			logger.Error("profiles ended", "error", err)
		}
	}()
	logger.Info("profiles", "address", l.Addr().String())
	return func() { s.Close(); <-done }, nil
}
