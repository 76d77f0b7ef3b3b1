package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// listenerName is the listener that submitters use.
const listenerName = "load"

// writeConfig writes the configuration file of the server and returns its name. What is small makes rare things
// common: segments and event files end often.
func writeConfig(dir string, w *world) (string, error) {
	name := filepath.Join(dir, "godwit.yaml")
	text := fmt.Sprintf(`hostname: godwit.crash.example
data_dir: %q
drain_timeout: 10s
listeners:
  - name: %s
    address: "127.0.0.1:0"
    trusted_networks: [127.0.0.0/8]
    limits: {message_size: %d}
delivery:
  port: %d
  allowed_networks: [127.0.0.0/8]
  retry: [1s, 1s, 2s]
routes:
  - {domains: [%s], hosts: ["127.0.2.6:%d"], protocol: lmtp}
dns: {servers: [%q]}
journal: {segment_size: 8MiB}
events: {max_size: 4MiB, keep: 10000}
log: {format: json}
`, dataDir(dir), listenerName, messageLimit, w.port, lmtpDomain, w.port, w.dns.Addr())
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return name, nil
}

func dataDir(dir string) string   { return filepath.Join(dir, "data") }
func eventsDir(dir string) string { return filepath.Join(dir, "data", "events") }

// process is one life of the server.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	ready   chan string   // gets the listener's address when mail is taken
	gone    chan struct{} // closed when the process has ended
	err     error         // of its end; valid once gone is closed
}

// startProcess runs `godwit serve`; what it logs is appended to log too.
func startProcess(binary, config string, log *serverLog) (*process, error) {
	p := &process{ready: make(chan string, 1), gone: make(chan struct{})}
	p.cmd = exec.Command(binary, "serve", "--config", config)
	p.cmd.Env = []string{} // neither a service manager nor settings of whoever runs the test
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
	for lines.Scan() {
		var line struct {
			Level     string            `json:"level"`
			Msg       string            `json:"msg"`
			Listeners map[string]string `json:"listeners"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			line.Level = "ERROR" // a panic, or what the runtime says at the end of a process
		}
		log.add(lines.Bytes(), line.Level == "ERROR")
		if line.Msg == "ready" {
			select {
			case p.ready <- line.Listeners[listenerName]:
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long must not block the server
}

// errDied says that the server ended without being asked to.
var errDied = errors.New("the server ended by itself")

// awaitReady returns the address and how long it took.
func (p *process) awaitReady(limit time.Duration) (string, time.Duration, error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case address := <-p.ready:
		return address, time.Since(p.started), nil
	case <-p.gone:
		return "", 0, fmt.Errorf("%w while starting: %v", errDied, p.err)
	case <-t.C:
		return "", 0, fmt.Errorf("the server is not ready after %s", limit)
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

const mostComplaints = 20

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
