package crash

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// listenerName is the listener that submitters use.
const listenerName = "load"

// serverConfig is what scenarios change in the server's configuration. What is small makes rare things common:
// segments and event files end often.
type serverConfig struct {
	segment     string // default 8MiB
	messageSize int    // default messageLimit
	retry       string // default [1s, 1s, 2s]
	command     string // limits.command_timeout; default 5m
	drain       string // drain_timeout; default 10s
	delivery    string // further keys of delivery, each line indented
	more        string // further lines at the top level
}

// write writes the configuration file of the server and returns its name.
func (c serverConfig) write(dir, data string, w *world) (string, error) {
	c.segment = cmp.Or(c.segment, "8MiB")
	c.messageSize = cmp.Or(c.messageSize, messageLimit)
	name := filepath.Join(dir, "godwit.yaml")
	text := fmt.Sprintf(`hostname: godwit.crash.example
data_dir: %q
drain_timeout: %s
listeners:
  - name: %s
    address: "127.0.0.1:0"
    trusted_networks: [127.0.0.0/8]
    limits: {message_size: %d, command_timeout: %s}
delivery:
  port: %d
  allowed_networks: [127.0.0.0/8]
  retry: %s
  idle_timeout: 5s
%sroutes:
  - {domains: [%s], hosts: ["127.0.2.6:%d"], protocol: lmtp}
dns: {servers: [%q]}
journal: {segment_size: %s}
events: {max_size: 4MiB, keep: 10000}
log: {format: json}
%s`, data, cmp.Or(c.drain, "10s"), listenerName, c.messageSize, cmp.Or(c.command, "5m"), w.port,
		cmp.Or(c.retry, "[1s, 1s, 2s]"), c.delivery, lmtpDomain, w.port, w.dns.Addr(), c.segment, c.more)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return name, nil
}

func eventsDir(dir string) string { return filepath.Join(dir, "data", "events") }

// process is one life of the server.
type process struct {
	cmd      *exec.Cmd
	started  time.Time
	ready    chan readiness // gets where to find it when mail is taken
	address  string         // of the listener; this and what follows is known once it is ready
	profiles string         // of the profiles; empty: off
	data     string         // its data directory

	listeners map[string]string // addresses of all of them
	readyAt   time.Time
	gone      chan struct{} // closed when the process has ended
	err       error         // of its end; valid once gone is closed

	mu     sync.Mutex
	fault  time.Time // when the disk failed for the first time, as its log says
	failed time.Time // when it said that nothing more is accepted
	panics []string
}

// readiness is what the server says of itself when it takes mail.
type readiness struct {
	listeners map[string]string
	profiles  string
	data      string
	at        time.Time
}

// startProcess runs the server; what it logs is appended to log too.
func startProcess(args, env []string, log *serverLog) (*process, error) {
	p := &process{ready: make(chan readiness, 1), gone: make(chan struct{})}
	p.cmd = exec.Command(args[0], args[1:]...)
	// Neither a service manager nor settings of whoever runs the test; wrappers need a path.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	go func() {
		defer close(p.gone)
		p.follow(stderr, log)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// follow reads what the server logs, to its end.
func (p *process) follow(stderr io.Reader, log *serverLog) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	profiles := ""
	for lines.Scan() {
		var line struct {
			Level     string            `json:"level"`
			Msg       string            `json:"msg"`
			Listeners map[string]string `json:"listeners"`
			Address   string            `json:"address"`
			Data      string            `json:"data_dir"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			line.Level = "ERROR" // a panic, or what the runtime says at the end of a process
			p.notePanic(lines.Text())
		}
		log.add(lines.Bytes(), line.Level == "ERROR")
		switch line.Msg {
		case "profiles":
			profiles = line.Address
		case "fault", "fault begins":
			p.mark(&p.fault)
		case "journal has failed: nothing more is accepted":
			p.mark(&p.failed)
		case "ready":
			select {
			case p.ready <- readiness{line.Listeners, profiles, line.Data, time.Now()}:
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long must not block the server
}

// mark notes the time of what happened for the first time.
func (p *process) mark(t *time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.IsZero() {
		*t = time.Now()
	}
}

func (p *process) notePanic(line string) {
	if !strings.HasPrefix(line, "panic:") && !strings.HasPrefix(line, "fatal error:") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.panics = append(p.panics, line)
}

// trouble returns when the disk failed first and when the server gave up, zero if they did not, and its panics.
func (p *process) trouble() (fault, failed time.Time, panics []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.failed, slices.Clone(p.panics)
}

// errDied says that the server ended without being asked to.
var errDied = errors.New("the server ended by itself")

// awaitReady waits until the server takes mail.
func (p *process) awaitReady(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case r := <-p.ready:
		p.address, p.profiles, p.readyAt = r.listeners[listenerName], r.profiles, r.at
		p.listeners, p.data = r.listeners, r.data
		return nil
	case <-p.gone:
		return fmt.Errorf("%w while starting: %v", errDied, p.err)
	case <-t.C:
		return fmt.Errorf("the server is not ready after %s", limit)
	}
}

// kill sends SIGKILL and waits for the end. It is an error if the process was gone before.
func (p *process) kill() (kill, error) {
	select {
	case <-p.gone:
		return kill{}, fmt.Errorf("%w: %v", errDied, p.err)
	default:
	}
	k := kill{Started: p.started, Began: time.Now()}
	err := p.cmd.Process.Kill()
	<-p.gone
	k.Gone = time.Now()
	return k, err
}

// stop sends SIGTERM and waits for an orderly end.
func (p *process) stop(limit time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.gone:
	case <-t.C:
		err := p.cmd.Process.Kill()
		<-p.gone
		return errors.Join(fmt.Errorf("the server has not stopped within %s of SIGTERM", limit), err)
	}
	if p.err != nil {
		return fmt.Errorf("stop server: %w", p.err)
	}
	return nil
}

// serverLog keeps what all lives of the server logged in a file, and the complaints among it.
type serverLog struct {
	mu         sync.Mutex
	file       *os.File
	complaints []string
	more       int
}

const mostComplaints = 5

func (l *serverLog) add(line []byte, complaint bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line[:len(line):len(line)], '\n')); err != nil {
		complaint = true
	}
	if !complaint {
		return
	}
	if len(l.complaints) == mostComplaints {
		l.more++
		return
	}
	l.complaints = append(l.complaints, string(line))
}

// size returns how many octets were logged so far.
func (l *serverLog) size() (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// since returns what was logged after the first so many octets.
func (l *serverLog) since(octets int64) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, err := os.ReadFile(l.file.Name())
	if err != nil {
		return "", err
	}
	return string(p[min(octets, int64(len(p))):]), nil
}

// tail returns the last complaints of the server, to stand below an error.
func (l *serverLog) tail() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var text string
	for _, line := range l.complaints {
		text += "\n  server: " + line
	}
	return text
}
