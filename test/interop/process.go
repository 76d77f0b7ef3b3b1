//go:build interop

package interop

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTime = 20 * time.Second // for a peer to open its sockets
	stopTime  = 15 * time.Second // for a peer to end before it is killed
	toolTime  = 60 * time.Second // for a client to hand in its mail
)

// process is a server of its own process group that writes to a log file.
type process struct {
	name string
	log  string   // its output
	more []string // further logs of its own
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // after done: how
}

// launch starts a server; it is stopped, and waited for, when the test ends. Should the test be killed, the kernel ends it.
func launch(t *testing.T, dir, name string, argv ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	err = p.cmd.Start()
	out.Close()
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", name, p.tail(40))
		}
	})
	return p
}

// stop asks the whole group to end, and kills what does not.
func (p *process) stop(t *testing.T) {
	t.Helper()
	group := -p.cmd.Process.Pid
	if err := syscall.Kill(group, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("stop %s: %v", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(stopTime):
		t.Errorf("%s did not stop within %v", p.name, stopTime)
	}
	// The group may outlive its leader; it is ours alone.
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.done
}

// tail returns the last n lines of the logs.
func (p *process) tail(n int) string {
	var text []byte
	for _, name := range append([]string{p.log}, p.more...) {
		if part, err := os.ReadFile(name); err == nil { // it writes one when it has something to say
			text = append(text, part...)
		}
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// await waits until cond holds, and fails the test if the server ends before.
func (p *process) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTime); !cond(); {
		select {
		case <-p.done:
			t.Fatalf("%s ended before %s: %v\n%s", p.name, what, p.err, p.tail(40))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: no %s within %v\n%s", p.name, what, startTime, p.tail(40))
		}
	}
}

// awaitGreeting waits until a server at address says its first line.
func (p *process) awaitGreeting(t *testing.T, address string) {
	t.Helper()
	p.await(t, "greeting at "+address, func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		var line [4]byte
		_, err = c.Read(line[:])
		_, _ = c.Write([]byte("QUIT\r\n"))
		return err == nil && string(line[:]) == "220 "
	})
}

// run runs a tool to its end and returns what it printed. A tool that fails, fails the test.
func run(t *testing.T, stdin []byte, argv ...string) string {
	t.Helper()
	out, err := try(t, stdin, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// try runs a tool to its end; its standard error follows its output if it fails.
func try(t *testing.T, stdin []byte, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(stdin)
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	if err := cmd.Run(); err != nil {
		return out.String() + diagnosis.String(), err
	}
	return out.String(), nil
}

// need skips the test, or fails it if INTEROP_REQUIRE is set, unless all programs are there.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lack(t, p)
		}
	}
}

// lack says what is missing and how to get it.
func lack(t *testing.T, what string) {
	t.Helper()
	const advice = "%s is missing; it runs as root on Debian, where scripts/interop installs what it needs"
	if os.Getenv("INTEROP_REQUIRE") == "1" {
		t.Fatalf(advice, what)
	}
	t.Skipf(advice, what)
}

// write makes a file of a peer that everyone can read.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
