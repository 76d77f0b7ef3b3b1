package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// server is the program under measurement, running on a data directory.
type server struct {
	dir       string
	cmd       *exec.Cmd
	address   string            // of its usual listener
	listeners map[string]string // the addresses of all
	startup   time.Duration     // until it took mail
	api       *api.Client
	log       *bytes.Buffer // the last it said, for errors
	gone      chan error
}

// configure writes the configuration for a server whose mail all goes to sink.
func configure(dir, sink string) error {
	text := fmt.Sprintf(`hostname: growth.example.com
data_dir: %q
listeners:
  - {name: relay, address: "127.0.0.1:0", trusted_networks: [127.0.0.0/8]}
limits: {sessions: 20000, sessions_per_client: 20000}
routes:
  - {domains: ["*"], hosts: [%q]}
log: {format: json, level: warn}
`, filepath.Join(dir, "data"), sink)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "godwit.yaml"), []byte(strings.Replace(text, ", level: warn", "", 1)), 0o600)
}

// startServer runs the program on dir, which configure has prepared, and returns when it takes mail.
func startServer(ctx context.Context, b *bench, dir string) (*server, error) {
	s := &server{dir: dir, log: new(bytes.Buffer), gone: make(chan error, 1)}
	args := append(strings.Fields(b.binary), "serve", "--config", filepath.Join(dir, "godwit.yaml"))
	if addr := os.Getenv("GROWTH_PPROF"); addr != "" { // for whoever wants to know why
		args = append(args, "--pprof", addr)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	ready := make(chan map[string]string, 1)
	go func() {
		s.follow(stderr, ready)
		s.gone <- s.cmd.Wait()
	}()
	select {
	case s.listeners = <-ready:
		s.address = s.listeners["relay"]
	case err := <-s.gone:
		return nil, fmt.Errorf("the server ended while starting: %v\n%s", err, s.log)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), s.kill())
	}
	s.startup = time.Since(began)
	s.api = api.NewSocketClient(filepath.Join(dir, "data", "admin.sock"))
	return s, nil
}

// follow reads the log until its end.
func (s *server) follow(stderr io.Reader, ready chan<- map[string]string) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Msg       string            `json:"msg"`
			Listeners map[string]string `json:"listeners"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			ready <- line.Listeners
		}
		if s.log.Len() < 64<<10 {
			s.log.Write(lines.Bytes())
			s.log.WriteByte('\n')
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long must not block the server
}

// stop asks the server to end and waits for it.
func (s *server) stop() error {
	s.api.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case err := <-s.gone:
		if err != nil {
			return fmt.Errorf("the server ended with %w\n%s", err, s.log)
		}
		return nil
	case <-time.After(2 * time.Minute):
		return errors.Join(errors.New("the server does not stop"), s.kill())
	}
}

func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.gone
	return nil
}

// cpu returns the CPU time that the server has used.
func (s *server) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of the server: %w", err)
	}
	// Fields are counted behind the name, which is in parentheses and may hold anything (proc(5)).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system, tick = 11, 12, time.Second / 100
	if len(fields) <= system {
		return 0, errors.New("CPU time of the server: /proc is not understood")
	}
	u, err1 := strconv.ParseInt(fields[user], 10, 64)
	k, err2 := strconv.ParseInt(fields[system], 10, 64)
	return time.Duration(u+k) * tick, errors.Join(err1, err2)
}

// memory returns what the server holds resident, now and at most, in octets.
func (s *server) memory() (now, most int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of the server: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		n, _ := strconv.ParseInt(fields[0], 10, 64)
		switch name {
		case "VmRSS":
			now = n << 10
		case "VmHWM":
			most = n << 10
		}
	}
	if now == 0 {
		return 0, 0, errors.New("memory of the server: /proc is not understood")
	}
	return now, most, nil
}

// freshPeak forgets what the server held at most so far.
func (s *server) freshPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0o200)
}

// closedPort returns an address of this machine at which nobody listens.
func closedPort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
