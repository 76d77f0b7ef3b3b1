package crash

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A program made by Go reads the time from the kernel's page and not by calls, so neither a preloaded library nor a
// tracer can set its clock, and to set the machine's would hurt its other users. The clock of a test build can be set:
// it is the server with one line more in time.Now, laid over the standard library by `go build -overlay`. The monotonic
// clock, which timers go by, is not touched, as when an administrator or NTP sets a clock.

// clockVariable names the file that the added line reads seconds from.
const clockVariable = "GODWIT_TEST_CLOCK"

const (
	nowBegins = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowSteps  = nowBegins + "\tsec += clockStep()\n"
	stepFile  = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var clockStepAt = openClockStep()

func openClockStep() *int64 {
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("clock: " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("clock: " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}

func clockStep() int64 { return atomic.LoadInt64(clockStepAt) }
`
)

// buildWithClock builds the server with a clock that can be set, and returns its name.
func buildWithClock(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", Skip("there is no Go here to build a server whose clock can be set: %v", err)
	}
	name := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(name)
	if err != nil {
		return "", Skip("the source of package time cannot be read: %v", err)
	}
	stepped := strings.Replace(string(source), nowBegins, nowSteps, 1)
	if stepped == string(source) {
		return "", Skip("time.Now of this Go has another form, so that no clock can be built in")
	}
	overlay := struct{ Replace map[string]string }{map[string]string{
		name: filepath.Join(dir, "time.go"),
		filepath.Join(filepath.Dir(name), "clock_step.go"): filepath.Join(dir, "clock_step.go"),
	}}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "godwit-clock")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "time.go"), []byte(stepped), 0o600),
		os.WriteFile(filepath.Join(dir, "clock_step.go"), []byte(stepFile), 0o600),
		os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600),
	)
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary,
		"github.com/godwit-mta/godwit/cmd/godwit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the server with a clock that can be set: %w\n%s", err, out)
	}
	return binary, nil
}

// wallClock is the clock of such a server.
type wallClock struct {
	name string
	page []byte
}

func newWallClock(dir string) (*wallClock, error) {
	c := &wallClock{name: filepath.Join(dir, "clock")}
	if err := os.WriteFile(c.name, make([]byte, 8), 0o600); err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	f, err := os.OpenFile(c.name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	defer f.Close()
	c.page, err = unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	return c, nil
}

func (c *wallClock) env() string { return clockVariable + "=" + c.name }

// step sets the clock forward by d, or back.
func (c *wallClock) step(d time.Duration) {
	now := int64(binary.NativeEndian.Uint64(c.page))
	binary.NativeEndian.PutUint64(c.page, uint64(now+int64(d/time.Second)))
}

func (c *wallClock) close() error { return unix.Munmap(c.page) }
