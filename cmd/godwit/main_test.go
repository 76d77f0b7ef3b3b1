package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// patience bounds what scripts wait for; nothing takes that long where all is well.
const patience = 30 * time.Second

// watched is the tests with an eye on goroutines that they leave behind.
type watched struct{ m *testing.M }

func (w watched) Run() int {
	code := w.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(watched{m}, map[string]func(){"godwit": main})
}

// TestScripts runs testdata/script/*.txtar: the real program, as a process of its own. Beside the commands of
// testscript there are
//
//	exits STATUS COMMAND...    runs a command that must end with this status
//	keys FILE [PATH] KEY...    the JSON object at PATH, which begins with a dot, has exactly these keys
//	json FILE PATH VALUE       the JSON value at PATH, such as .queues.0.domain, is VALUE
//	fill FILE...               replaces ${NAME} in files
//	spawn NAME COMMAND...      begins a process that writes to NAME.out and NAME.err
//	await FILE REGEXP [VAR]    waits for a match; its first group is the value of VAR from now on
//	until STATUS COMMAND...    repeats a command until it ends with this status
//	signal NAME SIGNAL         sends INT, TERM, HUP or USR1
//	ended NAME STATUS          waits until the process has ended with this status
//	login SERVER NAME SECRET SENDER CODE...
//	                           logs in by AUTH PLAIN and, if let in, begins mail from SENDER; the codes are the replies'
//	nameserver VAR             begins a name server, whose address is VAR from now on
//	nameserver zone FILE...    gives it these zones
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// The path of a socket may have some 100 octets, and a script's directory is long already.
			dir, err := os.MkdirTemp("", "gw")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("DATA", dir)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // each of many short processes would take a second
			p := &processes{running: make(map[string]*process)}
			env.Defer(p.killAll)
			env.Values[processesKey{}] = p
			env.Values[nameserverKey{}] = new(nameserver)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits, "keys": cmdKeys, "json": cmdJSON, "fill": cmdFill, "spawn": cmdSpawn, "await": cmdAwait,
			"until": cmdUntil, "signal": cmdSignal, "ended": cmdEnded, "login": cmdLogin, "nameserver": cmdNameserver,
		},
	})
}

type processesKey struct{}

// processes are what a script has spawned.
type processes struct {
	mu      sync.Mutex
	running map[string]*process
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *processes) killAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.running {
		select {
		case <-r.done:
			continue
		default:
		}
		_ = r.cmd.Process.Kill() // it may have ended just now
		<-r.done
	}
}

func named(ts *testscript.TestScript, name string) *process {
	p := ts.Value(processesKey{}).(*processes)
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.running[name]
	if r == nil {
		ts.Fatalf("no process %s", name)
	}
	return r
}

func need(ts *testscript.TestScript, neg bool, args []string, least int) {
	if neg || len(args) < least {
		ts.Fatalf("wrong use: see TestScripts")
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	if got := statusOf(ts, ts.Exec(args[1], args[2:]...)); strconv.Itoa(got) != args[0] {
		ts.Fatalf("status %d, want %s", got, args[0])
	}
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := statusOf(ts, ts.Exec(args[1], args[2:]...)); strconv.Itoa(got) == args[0] {
			return
		}
	}
	ts.Fatalf("never ended with %s", args[0])
}

func statusOf(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%v", err)
	return -1
}

// lookup finds a value by a path such as .queues.0.domain; a lone dot is the whole.
func lookup(ts *testscript.TestScript, file, path string) any {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(file)), &v); err != nil {
		ts.Fatalf("%s is no JSON: %v", file, err)
	}
	for name := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		if name == "" {
			return v
		}
		switch in := v.(type) {
		case map[string]any:
			found, ok := in[name]
			if !ok {
				ts.Fatalf("%s: %s is not there", path, name)
			}
			v = found
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				ts.Fatalf("%s: %s is not one of %d", path, name, len(in))
			}
			v = in[i]
		default:
			ts.Fatalf("%s: %s is within no object", path, name)
		}
	}
	return v
}

func cmdKeys(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	path, want := ".", slices.Clone(args[1:])
	if strings.HasPrefix(want[0], ".") {
		path, want = want[0], want[1:]
	}
	object, ok := lookup(ts, args[0], path).(map[string]any)
	if !ok {
		ts.Fatalf("%s is no object", path)
	}
	got := make([]string, 0, len(object))
	for k := range object {
		got = append(got, k)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		ts.Fatalf("keys %v, want %v", got, want)
	}
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3)
	var got string
	switch v := lookup(ts, args[0], args[1]).(type) {
	case string:
		got = v
	default:
		p, err := json.Marshal(v)
		ts.Check(err)
		got = string(p)
	}
	if want := strings.Join(args[2:], " "); got != want {
		ts.Fatalf("%s is %s, want %s", args[1], got, want)
	}
}

func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1)
	for _, file := range args {
		text := regexp.MustCompile(`\$\{\w+\}`).ReplaceAllStringFunc(ts.ReadFile(file), func(s string) string {
			return ts.Getenv(s[2 : len(s)-1])
		})
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

func cmdSpawn(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	name := args[0]
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer errs.Close()
	path := args[1]
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(filepath.ListSeparator)) {
		if _, err := os.Stat(filepath.Join(dir, args[1])); err == nil {
			path = filepath.Join(dir, args[1])
			break
		}
	}
	r := &process{cmd: exec.Command(path, args[2:]...), done: make(chan struct{})}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = ts.MkAbs("."), out, errs
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE"} {
		if v := ts.Getenv(name); v != "" {
			r.cmd.Env = append(r.cmd.Env, name+"="+v)
		}
	}
	ts.Check(r.cmd.Start())
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // ProcessState says what became of it
	}()
	p := ts.Value(processesKey{}).(*processes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[name] = r
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if m := want.FindStringSubmatch(ts.ReadFile(args[0])); m != nil {
			if len(args) > 2 {
				ts.Setenv(args[2], m[1])
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s never came; it has\n%s", args[1], ts.ReadFile(args[0]))
		}
	}
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	s, ok := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP,
		"USR1": countersSignals()[0]}[args[1]]
	if !ok {
		ts.Fatalf("no signal %s", args[1])
	}
	ts.Check(named(ts, args[0]).cmd.Process.Signal(s))
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	r := named(ts, args[0])
	select {
	case <-r.done:
	case <-time.After(patience):
		ts.Fatalf("%s is still running", args[0])
	}
	if got := r.cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s ended with %d, want %s:\n%s", args[0], got, args[1], ts.ReadFile(args[0]+".err"))
	}
}

// run runs a command line in this process.
func run(t *testing.T, input string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{self: "godwit", in: strings.NewReader(input), out: &stdout, err: &stderr}
	status = a.run(t.Context(), args)
	return status, stdout.String(), stderr.String()
}
